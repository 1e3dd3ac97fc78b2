{{/* Labels of every object. */}}
{{- define "lateen.labels" -}}
app.kubernetes.io/part-of: lateen
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* The tag of the images. */}}
{{- define "lateen.tag" -}}
{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}

{{/* What the control plane of a revision is called: several stand side by side. */}}
{{- define "lateen.ctrl" -}}
lateen-ctrl{{ if ne . "default" }}-{{ . }}{{ end }}
{{- end }}

{{/* Whether the agents come with this control plane: something, or nothing. One of a cluster's has them. */}}
{{- define "lateen.agents" -}}
{{- $wanted := toString .Values.nodeAgent.enabled -}}
{{- if or (eq $wanted "true") (and (eq $wanted "auto") (eq .Values.revision "default")) }}yes{{ end }}
{{- end }}
