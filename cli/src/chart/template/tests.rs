//! What Go's templates make of the same text.

use serde_json::json;

use super::{TemplateError, Templates};

fn render(text: &str) -> Result<String, TemplateError> {
    let context = json!({
        "Values": {
            "on": true, "off": false, "number": 3, "zero": 0, "text": "a\"b", "empty": "",
            "map": {"b": 2, "a": "x"}, "list": ["p", "q"], "none": {}, "nothing": null,
        },
        "Release": {"Namespace": "ns"},
    });
    let mut templates = Templates::default();
    templates.add("_helpers", "{{- define \"label\" -}}\napp: {{ .Release.Namespace }}\n{{- end }}")?;
    templates.add("file", text)?;
    templates.render("file", &context)
}

#[test]
fn writes_what_go_would() {
    for (text, wanted) in [
        ("a {{ .Values.text }} b", "a a\"b b"),
        ("{{ .Values.text | quote }}", r#""a\"b""#),
        ("{{ .Values.absent.deeper }}|{{ .Values.nothing }}", "|"),
        ("a\n  {{- if .Values.on }}\n  yes\n  {{- end }}\nb", "a\n  yes\nb"),
        ("{{ if .Values.off }}a{{ else if .Values.zero }}b{{ else }}c{{ end }}", "c"),
        ("{{ if not .Values.empty }}a{{ end }}{{ if and .Values.on .Values.none }}b{{ end }}", "a"),
        ("{{ if or .Values.off .Values.list }}a{{ end }}{{ if eq .Values.number 3 }}b{{ end }}", "ab"),
        ("{{ range $k, $v := .Values.map }}{{ $k }}={{ $v }};{{ end }}", "a=x;b=2;"),
        ("{{ range .Values.list }}{{ . }},{{ $.Release.Namespace }};{{ end }}", "p,ns;q,ns;"),
        ("{{ range .Values.none }}a{{ else }}none{{ end }}", "none"),
        ("{{ with .Values.map }}{{ .a }}{{ end }}", "x"),
        ("{{ $x := .Values.number }}{{ $x }}", "3"),
        ("l:\n  {{- include \"label\" . | nindent 2 }}", "l:\n  app: ns"),
        ("{{ join \",\" .Values.list | quote }}", r#""p,q""#),
        ("{{ default 7 .Values.zero }} {{ .Values.number | default 7 }}", "7 3"),
        ("{{ .Values.map | toJson }}", r#"{"b":2,"a":"x"}"#),
        ("{{ printf \"%s-%d\" .Release.Namespace .Values.number }}", "ns-3"),
        ("{{ (eq .Release.Namespace \"ns\") }}", "true"),
        ("a{{/* said to nobody */}}b", "ab"),
        ("a  {{- /* nor this */ -}}  b", "ab"),
    ] {
        assert_eq!(render(text).as_deref(), Ok(wanted), "{text}");
    }
}

#[test]
fn what_is_not_known_is_refused() {
    for (text, cause) in [
        ("{{ .Values.text", "{{ without }}"),
        ("{{ if .Values.on }}a", "without its end"),
        ("a{{ end }}", "without a beginning"),
        ("{{ lookup \"v1\" \"Secret\" \"a\" \"b\" }}", "lookup of 4 values is not a function"),
        ("{{ include \"nobody\" . }}", "no template \"nobody\""),
        ("{{ $unknown }}", "no variable $unknown"),
        ("{{ range .Values.number }}{{ end }}", "neither list nor map"),
        ("{{ fail \"because\" }}", "because"),
        ("{{ }}", "nothing to write"),
        ("{{ include \"file\" . }}", "includes itself"),
    ] {
        let refused = render(text).map_err(|error| error.to_string());
        assert!(matches!(&refused, Err(error) if error.contains(cause)), "{text}: {refused:?}");
    }
}
