//! `lateen ca`: how the mesh's certificate authority stands, and what people have it do; asked of ctrl over its admin
//! socket.

use std::process::ExitCode;

use pages::ca::{Late, Restored, Revoked, Status};

use crate::args::{CaAction, CaArgs, VersionFormat};
use crate::ctrl::{ask, read};
use crate::local::manifests::DEFAULT_NAMESPACE;
use crate::place::Place;
use crate::{Outcome, say};

/// Runs `ca`.
pub(crate) fn run(place: &Place, namespace: Option<&str>, args: &CaArgs) -> Outcome {
    match &args.action {
        CaAction::Status { output } => {
            let status = ask(place, "GET", "/ca")?;
            match output {
                Some(VersionFormat::Json) => say(&format!("{status:#}")),
                None => say(table(&read(&status)?).trim_end()),
            }
        }
        CaAction::RotateRoot { now } => {
            let path = if *now { "/ca/rotate-root?now" } else { "/ca/rotate-root" };
            let status: Status = read(&ask(place, "POST", path)?)?;
            say(&format!("{}: {}", status.phase, status.explanation));
        }
        CaAction::Revoke { what } => {
            let path = format!("/ca/revoke?what={}", encoded(&full(what, namespace)));
            say(&revoked(&read(&ask(place, "POST", &path)?)?));
        }
        CaAction::Restore { what } => {
            let path = format!("/ca/restore?what={}", encoded(&full(what, namespace)));
            let restored: Restored = read(&ask(place, "POST", &path)?)?;
            say(&format!("{} gets certificates again", restored.identity));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn revoked(Revoked { identity, whole, certificates }: &Revoked) -> String {
    if *whole {
        format!(
            "{identity} is revoked: {certificates} certificates count no more, and it gets no others until: lateen ca restore \
             {identity}"
        )
    } else {
        format!("a certificate of {identity} is revoked; it gets another one")
    }
}

/// A service account without its namespace is of the namespace meant; what looks like a serial number is one.
fn full(what: &str, namespace: Option<&str>) -> String {
    let is_number = what.len() >= 16 && what.chars().all(|c| c.is_ascii_hexdigit() || c == ':');
    if is_number || what.contains('/') {
        return what.to_owned();
    }
    format!("{}/{what}", namespace.unwrap_or(DEFAULT_NAMESPACE))
}

/// Percent-encodes what is not plain.
pub(crate) fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn table(status: &Status) -> String {
    let mut lines = vec![
        format!("authority  {}", status.authority),
        format!("phase      {}: {}", status.phase, status.explanation),
        format!(
            "issued     {} certificates that have not ended, {} of them revoked",
            status.issued, status.revoked_certificates
        ),
        String::new(),
        format!("{:<13} {:<9} {:<21} {:<33} SUBJECT", "CERTIFICATE", "STATE", "NOT AFTER", "SERIAL"),
    ];
    lines.extend(status.certificates.iter().map(|row| {
        format!("{:<13} {:<9} {:<21} {:<33} {}", row.kind, row.state, row.not_after, row.serial, row.subject)
    }));
    if !status.revoked_identities.is_empty() {
        lines.push(format!("\nrevoked    {}", status.revoked_identities.join("\n           ")));
    }
    lines.extend(status.late.iter().map(|Late { identity, holder, not_after }| {
        format!("late       {identity} on {holder}: ends at {not_after} and was not renewed")
    }));
    lines.extend(status.warnings.iter().map(|warning| format!("warning    {warning}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_and_numbers_left_alone() {
        for (what, namespace, expected) in [
            ("reviews", None, "default/reviews"),
            ("reviews", Some("shop"), "shop/reviews"),
            ("shop/reviews", Some("other"), "shop/reviews"),
            ("spiffe://td/ns/a/sa/b", None, "spiffe://td/ns/a/sa/b"),
            ("4f00aa00bb00cc00dd", None, "4f00aa00bb00cc00dd"),
            ("4f:00:aa:00:bb:00:cc", None, "4f:00:aa:00:bb:00:cc"),
            ("cafe", None, "default/cafe"),
        ] {
            assert_eq!(full(what, namespace), expected);
        }
        assert_eq!(encoded("a b&c/ü"), "a%20b%26c/%C3%BC");
    }
}
