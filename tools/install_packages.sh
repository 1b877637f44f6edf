#!/bin/sh
# Installs a lock, or the project's wheel, into the image's environment: sh install_packages.sh [LOCK]
#
# Left out is what no process loads: tests of packages, sources of compiled modules, pyarrow's Flight, onnxruntime's tools and C library,
# and the services of AWS other than S3 and those that give it credentials. Bytecode is made here, because the file system of a
# container is read-only. It is not compared with the source, whose times a copied layer may change.
set -eu
site=$(/app/venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
install="tools/bin/pip --python /app/venv/bin/python install --quiet --disable-pip-version-check --no-cache-dir --no-compile --no-deps"

if [ $# = 1 ]; then
  $install --require-hashes -r "$1"
  # `evidently.tests` is part of Evidently: it has no test_*.py.
  find "$site" -type d -name tests | while read -r folder; do
    [ -z "$(find "$folder" -name 'test_*.py' 2>/dev/null)" ] || rm -r "$folder"
  done
  find "$site" \( -name '*.a' -o -name '*.c' -o -name '*.h' -o -name '*.hpp' -o -name '*.pxd' -o -name '*.pyi' -o -name '*.pyx' \) -delete
  rm -rf "$site"/pyarrow/include "$site"/pyarrow/src "$site"/pyarrow/*flight*
  rm -f "$site"/pyarrow/libarrow*.so "$site"/pyarrow/libarrow*.so.*.* # copies of libarrow*.so.<major>, to link with
  rm -rf "$site"/onnxruntime/quantization "$site"/onnxruntime/tools "$site"/onnxruntime/transformers "$site"/onnxruntime/capi/libonnxruntime.so*
  find "$site/botocore/data" -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sso ! -name sso-oidc ! -name sts -exec rm -r {} +
  set -- "$site"
else
  $install wheels/*.whl
  set -- "$site/creditrisk_assets" "$site/serving"
fi
# A report loads a few of plotly's 15,000 files, and the command line none of Pygments' lexers.
/app/venv/bin/python -W ignore -m compileall -qq -j 0 --invalidation-mode unchecked-hash -x '/(plotly|pygments/lexers)/' "$@"
