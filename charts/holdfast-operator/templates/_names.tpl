{{- define "holdfast-operator.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default .Release.Name -}}
{{- end -}}

{{- define "holdfast-operator.image" -}}
{{- include "holdfast-operator.reference" (dict "image" .Values.image "default" .Chart.AppVersion) -}}
{{- end -}}

{{- define "holdfast-operator.serverImage" -}}
{{- include "holdfast-operator.reference" (dict "image" .Values.serverImage "default" .Chart.AppVersion) -}}
{{- end -}}

{{- define "holdfast-operator.reference" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .default) -}}
{{- end -}}
{{- end -}}

{{- define "holdfast-operator.selector" -}}
app.kubernetes.io/name: holdfast-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "holdfast-operator.labels" -}}
{{ include "holdfast-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
