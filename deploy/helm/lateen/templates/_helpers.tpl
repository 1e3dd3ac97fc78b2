{{/* Labels of every object. */}}
{{- define "lateen.labels" -}}
app.kubernetes.io/part-of: lateen
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* The tag of the images. */}}
{{- define "lateen.tag" -}}
{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
