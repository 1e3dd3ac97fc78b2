//! Reading settings, and the page of the documentation.

use super::*;

const TABLE: &[Setting] = &[
    Setting { name: "XDS_ADDRESS", default: "https://istiod:15012", meaning: "where the controller is" },
    Setting { name: "DRAIN", default: "5s", meaning: "how long to drain" },
];

fn read(args: &[&str], env: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Settings::read(TABLE, args.iter().map(|arg| (*arg).to_owned()), env)
}

#[test]
fn flags_come_before_the_environment_and_that_before_defaults() {
    assert_eq!(read(&[], &[]).unwrap().text("DRAIN"), "5s");
    assert_eq!(read(&[], &[("DRAIN", "6s")]).unwrap().text("DRAIN"), "6s");
    assert_eq!(read(&["--drain=7s"], &[("DRAIN", "6s")]).unwrap().text("DRAIN"), "7s");
    let settings = read(&["--xds-address", "a,b", "--xds-address", "c"], &[]).unwrap();
    assert_eq!(settings.list("XDS_ADDRESS"), ["a", "b", "c"]);
}

#[test]
fn says_what_is_wrong() {
    let unknown = read(&["--xds-adress", "x"], &[]).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "unknown flag --xds-adress (did you mean --xds-address?); --help lists them"
    );
    assert_eq!(read(&["--drain"], &[]).unwrap_err().to_string(), "--drain needs a value");
    let settings = read(&["--drain", "soon"], &[]).unwrap();
    assert!(settings.duration("DRAIN").unwrap_err().to_string().contains("\"soon\" is not a duration"));
}

#[test]
fn a_type_says_itself_what_it_takes() {
    let settings = read(&["--drain", " b3,jaeger"], &[]).unwrap();
    let refused = settings.parse_explained::<crate::trace::propagation::Formats>("DRAIN").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "DRAIN: \"jaeger\" is no format of trace headers: choose among tracecontext, b3 and b3multi"
    );
    assert!(settings.parse_explained::<String>("DRAIN").is_ok());
}

#[test]
fn reads_durations() {
    for (text, millis) in
        [("5ms", Some(5)), ("2s", Some(2000)), ("1h", Some(3_600_000)), ("5", None), ("s", None)]
    {
        assert_eq!(parse_duration(text), millis.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn a_section_takes_the_place_of_the_one_before() {
    let first = with_section("# Page\n\n", "a", "old\n");
    let both = with_section(&format!("{first}\n"), "b", "other\n");
    assert_eq!(with_section(&both, "b", "other\n"), both);
    assert_eq!(with_section(&both, "a", "new\n"), both.replace("old", "new"));
}
