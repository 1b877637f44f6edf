{{- define "creditrisk.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "creditrisk.selector" -}}
app.kubernetes.io/name: creditrisk
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "creditrisk.labels" -}}
{{ include "creditrisk.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "creditrisk.image" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end }}
{{- end }}

{{- define "creditrisk.mlflowUrl" -}}
http://{{ include "creditrisk.name" . }}-mlflow:5000
{{- end }}

{{/* Settings that are not secret, the same for every process, as a map. */}}
{{- define "creditrisk.settings" -}}
CREDITRISK_DATA_DIR: {{ .Values.store.dataDir | quote }}
CREDITRISK_POLICY: /app/policy.toml
CREDITRISK_WATCH_API_URL: http://{{ include "creditrisk.name" . }}-api:8000
MLFLOW_TRACKING_URI: {{ include "creditrisk.mlflowUrl" . }}
{{- with .Values.store.endpointUrl }}
AWS_ENDPOINT_URL: {{ . | quote }}
MLFLOW_S3_ENDPOINT_URL: {{ . | quote }}
{{- end }}
{{- with .Values.store.region }}
AWS_DEFAULT_REGION: {{ . | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* The settings as the environment of a container, and the secrets by reference. `with` overrides them. */}}
{{- define "creditrisk.env" -}}
{{- $settings := include "creditrisk.settings" .root | fromYaml }}
{{- range $name, $value := merge (dict) (.with | default dict) $settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
- name: CREDITRISK_DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ .root.Values.database.secretName }}, key: {{ .root.Values.database.urlKey }}}
{{- end }}

{{- define "creditrisk.storeSecret" -}}
{{- with .Values.store.secretName }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "creditrisk.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "creditrisk.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What a process may write beside its volume: /tmp, and the folder of unfinished files. */}}
{{- define "creditrisk.scratchMounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: scratch, mountPath: /app/data}
{{- end }}

{{- define "creditrisk.scratchVolumes" -}}
- name: tmp
  emptyDir: {}
- name: scratch
  emptyDir: {}
{{- end }}

{{/* `mlflow server`; the address of its database is expanded by the kubelet from the secret. */}}
{{- define "creditrisk.mlflowContainer" -}}
name: mlflow
image: {{ include "creditrisk.image" .root.Values.image.dagster }}
imagePullPolicy: {{ .root.Values.image.dagster.pullPolicy }}
command: [mlflow, server]
args:
  - --backend-store-uri=$(MLFLOW_BACKEND_STORE_URI)
  - --artifacts-destination={{ trimSuffix "/" .root.Values.store.dataDir }}/mlflow
  - --workers={{ .workers }}
  - --host={{ .host }}
  - --port=5000
env:
  - name: MLFLOW_SERVER_ENABLE_JOB_EXECUTION
    value: "false"
  {{- with .allowedHosts }}
  - name: MLFLOW_SERVER_ALLOWED_HOSTS
    value: {{ . | quote }}
  {{- end }}
  {{- with .root.Values.store.endpointUrl }}
  - name: MLFLOW_S3_ENDPOINT_URL
    value: {{ . | quote }}
  {{- end }}
  {{- with .root.Values.store.region }}
  - name: AWS_DEFAULT_REGION
    value: {{ . | quote }}
  {{- end }}
  - name: MLFLOW_BACKEND_STORE_URI
    valueFrom:
      secretKeyRef: {name: {{ .root.Values.database.secretName }}, key: {{ .root.Values.database.mlflowUrlKey }}}
{{- with include "creditrisk.storeSecret" .root | trim }}
envFrom:
  {{- . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "creditrisk.containerSecurity" .root | nindent 2 }}
volumeMounts:
  {{- include "creditrisk.scratchMounts" .root | nindent 2 }}
{{- end }}
