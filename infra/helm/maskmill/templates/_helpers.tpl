{{- define "maskmill.name" -}}
{{- if contains "maskmill" .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-maskmill" (.Release.Name | trunc 43 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{- define "maskmill.selector" -}}
app.kubernetes.io/name: maskmill-worker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "maskmill.labels" -}}
{{ include "maskmill.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: maskmill
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "maskmill.serviceAccount" -}}
{{- if .Values.serviceAccount.name -}}
{{- .Values.serviceAccount.name -}}
{{- else if .Values.serviceAccount.create -}}
{{- include "maskmill.name" . -}}
{{- else -}}
default
{{- end -}}
{{- end -}}

{{- define "maskmill.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* host:port of a URL; without a port, that of its scheme */}}
{{- define "maskmill.address" -}}
{{- $ports := dict "redis" "6379" "rediss" "6379" "http" "80" "https" "443" -}}
{{- $url := urlParse . -}}
{{- if contains ":" $url.host -}}{{ $url.host }}{{- else -}}{{ $url.host }}:{{ get $ports $url.scheme }}{{- end -}}
{{- end -}}

{{/* yes if the URL of Redis names Sentinels. urlParse does not read their list of hosts. */}}
{{- define "maskmill.sentinel" -}}
{{- if hasPrefix "sentinel" . -}}yes{{- end -}}
{{- end -}}

{{/* host:port,host:port of the Sentinels */}}
{{- define "maskmill.sentinels" -}}
{{- $hosts := list -}}
{{- range regexReplaceAll "^sentinels?://([^/]+)/.*$" . "${1}" | splitList "," -}}
{{- $hosts = append $hosts (ternary . (printf "%s:26379" .) (contains ":" .)) -}}
{{- end -}}
{{- join "," $hosts -}}
{{- end -}}

{{- define "maskmill.port" -}}
{{- include "maskmill.address" . | splitList ":" | last -}}
{{- end -}}
