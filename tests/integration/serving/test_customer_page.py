"""The page as a browser without JavaScript gets it: over real HTTP, from the API as a process of its own."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from upath import UPath

from creditrisk_assets.defs.champion_commands import set_cut_off
from creditrisk_assets.portfolio.uci_card import PORTFOLIO
from serving.pages import model_documents
from tests.support.champions import name_champion
from tests.support.loop import Loop, api
from tests.support.pages import Page, text_of
from tests.support.waiting import until

EXAMPLE_CUSTOMER = dict(PORTFOLIO.example)
TYPED = {name: str(value) for name, value in EXAMPLE_CUSTOMER.items()}


@pytest.fixture(scope="module")
def client(trained: Loop) -> Iterator[httpx.Client]:
    with api(trained) as client:
        yield client


def test_a_customer_typed_into_the_form_gets_the_numbers_of_predict(client: httpx.Client) -> None:
    answer = client.post("/predict", json=EXAMPLE_CUSTOMER).json()
    page = client.post("/", data=TYPED)
    assert page.status_code == 200
    text = text_of(page.text)
    assert f"{answer['default_probability']:.2%}".replace("%", " %") in text
    assert f"{answer['score']:.1f} points" in text
    assert (
        "By the cut-off: flagged" if answer["prediction"] else "By the cut-off: not flagged"
    ) in text
    places = [
        text.index(reason["text"], text.index("Reasons that raise the risk"))
        for reason in answer["reasons"]
    ]
    assert places == sorted(places)
    assert Page(page.text).by_id("field-limit_bal")["value"] == "120000"


def test_what_if_says_what_would_change_each_reason_and_that_it_is_no_decision(
    client: httpx.Client,
) -> None:
    answer = client.post("/predict", json=EXAMPLE_CUSTOMER).json()
    body = client.post("/what-if", json=EXAMPLE_CUSTOMER).raise_for_status().json()
    same = (
        "prediction",
        "default_probability",
        "score",
        "cut_off",
        "model_version",
        "bundle_sha256",
    )
    assert {name: body[name] for name in same} == {name: answer[name] for name in same}
    assert [(one["code"], one["text"]) for one in body["reasons"]] == [
        (one["code"], one["text"]) for one in answer["reasons"]
    ]
    proposed = [one for one in body["reasons"] if one["instead"] is not None]
    assert proposed
    for one in proposed:
        changed = {change["field"]: change["instead"] for change in one["instead"]["changes"]}
        again = client.post("/predict", json={**EXAMPLE_CUSTOMER, **changed}).json()
        told = {
            name: one["instead"][name] for name in ("prediction", "default_probability", "score")
        }
        assert told == {name: again[name] for name in told}
        assert told["default_probability"] < answer["default_probability"]
    assert body["note"] == "a trial, not a decision: nothing was logged"
    assert "decision_id" not in body
    refused = client.post("/what-if", json={**EXAMPLE_CUSTOMER, "pay_0": 99})
    assert refused.status_code == 422
    assert refused.json()["problems"][0]["field"] == "pay_0"


@pytest.mark.parametrize("name", ["good", "borderline", "bad"])
def test_an_example_is_a_link_that_fills_the_form_and_answers(
    client: httpx.Client, name: str
) -> None:
    start = client.get("/")
    assert f'href="/?example={name}#outcome"' in start.text
    assert "No answer yet: choose an example" in text_of(start.text)
    page = client.get("/", params={"example": name})
    assert page.status_code == 200
    assert Page(page.text).by_id("field-limit_bal")["value"]
    assert "Probability of default" in text_of(page.text)


def test_an_unknown_example_is_the_empty_page(client: httpx.Client) -> None:
    page = client.get("/", params={"example": "<script>"})
    assert page.status_code == 200
    assert "<script>" not in page.text
    assert "Probability of default" not in text_of(page.text)


def test_problems_stand_beside_their_fields_and_what_was_typed_stays(client: httpx.Client) -> None:
    page = client.post("/", data={**TYPED, "age": "ninety", "limit_bal": "", "pay_2": "77"})
    assert page.status_code == 422
    made = Page(page.text)
    assert made.by_id("field-age")["value"] == "ninety"
    assert made.by_id("field-bill_amt1")["value"] == "2682"
    for name in ("age", "limit_bal", "pay_2"):
        control = made.by_id(f"field-{name}")
        assert control["aria-invalid"] == "true"
        assert f"{name}-problem" in str(control["aria-describedby"]).split()
        assert made.by_id(f"{name}-problem")
    text = text_of(page.text)
    assert "3 fields do not satisfy the contract" in text
    assert "Age: “ninety” is not valid; valid: a whole number from 18 to 120 (years)" in text
    assert "“77” is not valid; valid: one of -2, -1, 0, 1" in text
    assert "No answer yet: correct the form first" in text


@pytest.mark.parametrize(
    "attempt",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "' autofocus onfocus='alert(1)",
        "{{ 7 * 7 }}",
        "</select>",
    ],
)
def test_nothing_that_is_typed_becomes_part_of_the_page(client: httpx.Client, attempt: str) -> None:
    """A page that repeats what it was given must repeat it as text."""
    clean = Page(client.post("/", data={**TYPED, "age": "x", "sex": "y"}).text)
    dirty_page = client.post("/", data={**TYPED, "age": attempt, "sex": attempt, attempt: attempt})
    dirty = Page(dirty_page.text)
    assert [tag for tag, _ in dirty.tags] == [tag for tag, _ in clean.tags]
    assert [sorted(attributes) for _, attributes in dirty.tags] == [
        sorted(attributes) for _, attributes in clean.tags
    ]
    assert dirty.by_id("field-age")["value"] == attempt
    assert "49" not in dirty.by_id("age-problem")


@pytest.mark.parametrize(
    "body", [b"", b"&&&===", b"%ff%fe=%00", b"\xff\xfe", b"age=1&age=2", b"=" * 5_000]
)
def test_nonsense_in_the_form_is_answered_with_the_form(client: httpx.Client, body: bytes) -> None:
    page = client.post(
        "/", content=body, headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert page.status_code == 422
    assert "23 fields do not satisfy the contract" in text_of(page.text) or b"age=" in body


def test_a_form_of_more_fields_than_any_page_has_is_refused(client: httpx.Client) -> None:
    page = client.post(
        "/", content=b"a=1&" * 5_000, headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert page.status_code == 400
    assert page.json()["detail"] == "a form of more than 1000 fields"


def test_another_content_type_is_refused(client: httpx.Client) -> None:
    assert client.post("/", json=TYPED).status_code == 415
    assert client.post("/", content=b"a=1").status_code == 415


def test_the_page_has_no_script_or_style_of_its_own_and_names_no_other_host(
    client: httpx.Client,
) -> None:
    """It must work under its own policy, and without a network."""
    page = client.get("/", params={"example": "bad"})
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "set-cookie" not in page.headers
    for tag, attributes in Page(page.text).tags:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        for name in ("src", "href", "action"):
            address = attributes.get(name)
            assert address is None or re.match(r"/(?!/)|#", address), f"{tag} {name}={address}"
        assert tag != "script" or attributes.get("src")
    files = [
        str(attributes.get("src") or attributes.get("href"))
        for tag, attributes in Page(page.text).tags
    ]
    for address in {file for file in files if file.startswith("/static/")}:
        assert client.get(address).status_code == 200
        assert b"http" not in client.get(address).content.replace(
            b"http://www.w3.org/2000/svg", b""
        )


def test_every_field_has_a_label_and_the_protected_ones_say_that_nothing_uses_them(
    client: httpx.Client,
) -> None:
    made = Page(client.get("/").text)
    labelled = [
        str(attributes["for"]).removeprefix("field-")
        for tag, attributes in made.tags
        if tag == "label"
    ]
    named = [attributes["name"] for tag, attributes in made.tags if tag in ("input", "select")]
    assert labelled == named
    assert set(named) == set(PORTFOLIO.field_names)
    assert named[-4:] == list(PORTFOLIO.protected)
    assert "No feature of the model uses these fields" in text_of(client.get("/").text)


def test_the_model_in_force_is_described_with_its_card_and_its_curves(
    trained: Loop, client: httpx.Client
) -> None:
    record = trained.champion()
    page = client.get("/")
    text = text_of(page.text)
    assert record.bundle_sha256 in text
    manifest = trained.bundle(record).manifest
    assert f"{manifest.training.rows:,} customers, {manifest.training.bads:,} of them bad" in text
    assert f"AUC {manifest.metrics['roc_auc']:.4f}" in text
    card = client.get("/model/card")
    assert card.status_code == 200
    assert card.headers["content-type"].startswith("text/html")
    assert f"version {record.model_version}" in card.text
    assert "default-src 'none'" in card.headers["Content-Security-Policy"]
    for name in model_documents.CURVES:
        assert f'src="/model/plots/{name}.png"' in page.text
        curve = client.get(f"/model/plots/{name}.png")
        assert curve.headers["content-type"] == "image/png"
        assert curve.content.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "name", ["nothing", "..%2f..%2fmodel_card", "%2e%2e", "roc.png%00", "C:%5croc"]
)
def test_only_the_curves_of_the_list_can_be_asked_for(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/model/plots/{name}.png")
    assert answer.status_code == 404
    assert "detail" in answer.json()


def test_without_a_champion_the_page_says_what_to_run_and_keeps_what_was_typed(fresh: Loop) -> None:
    with api(fresh) as client:
        start = client.get("/")
        assert start.status_code == 200
        assert "There is no champion yet. Run make train" in text_of(start.text)
        assert "Nothing has happened yet" in text_of(start.text)
        page = client.post("/", data=TYPED)
        assert page.status_code == 503
        assert page.headers["Retry-After"] == "5"
        assert Page(page.text).by_id("field-limit_bal")["value"] == "120000"
        assert client.post("/what-if", json=EXAMPLE_CUSTOMER).status_code == 503
        assert client.get("/model/card").status_code == 503


def test_the_history_tells_who_was_champion_and_a_bundle_that_cannot_be_loaded_is_said(
    tmp_path: Path,
) -> None:
    loop = Loop.of(tmp_path / "site")
    assert loop.run("train").success
    set_cut_off(loop.instance, loop.settings, 0.25, "<b>a bad year</b>")
    with api(loop) as client:
        page = client.get("/")
        assert "<b>a bad year" not in page.text
        text = text_of(page.text)
        history = text[text.index("History of the champion") :]
        assert history.index("cut-off changed <b>a bad year</b>") < history.index(
            "first champion no champion before"
        )
        assert "Cut-off PD 25.00 %" in text
        assert (
            "Not written yet" not in text
        )  # ROC and calibration are written whatever the reports' setting
        assert client.get("/model/plots/ks.png").status_code == 404

        record = loop.champion()
        name_champion(loop, record.model_copy(update={"documents_uri": None}))
        until(lambda: "The model card is not written yet" in text_of(client.get("/").text), 10)
        assert client.get("/model/card").status_code == 404
        name_champion(loop, record.model_copy(update={"documents_uri": "models/77"}))
        until(
            lambda: (
                "The model card and the curves cannot be read now" in text_of(client.get("/").text)
            ),
            10,
        )
        assert client.get("/model/card").status_code == 503

        name_champion(loop, record.model_copy(update={"bundle_sha256": "0" * 64}))
        until(
            lambda: "The champion in force could not be read or loaded" in client.get("/").text, 10
        )
        page = client.get("/", params={"example": "good"})
        assert page.status_code == 200
        assert "cannot read" in text_of(page.text)
        assert "Probability of default" in text_of(page.text)
    loop.close()


def test_documents_are_read_from_an_object_store(trained: Loop, bucket: UPath) -> None:
    record = trained.champion().model_copy(update={"documents_uri": "run"})
    for read in (model_documents.has_card, model_documents.curves, model_documents.card):
        with pytest.raises(OSError, match="cannot be reached from here"):
            read(bucket, record)
    (bucket / "run" / "inventory.json").write_bytes(b"{}")
    assert not model_documents.has_card(bucket, record)
    assert model_documents.curves(bucket, record) == {}
    with pytest.raises(FileNotFoundError):
        model_documents.card(bucket, record)
    (bucket / "run" / "model_card.html").write_bytes(b"<h1>card</h1>")
    (bucket / "run" / "plots" / "roc.png").write_bytes(b"png")
    (bucket / "run" / "plots" / "secret.png").write_bytes(b"png")
    assert model_documents.has_card(bucket, record)
    assert list(model_documents.curves(bucket, record)) == ["roc"]
    assert model_documents.card(bucket, record) == b"<h1>card</h1>"
    assert model_documents.curve(bucket, record, "roc") == b"png"
    with pytest.raises(FileNotFoundError, match="no curve 'secret'; valid: roc, calibration"):
        model_documents.curve(bucket, record, "secret")
