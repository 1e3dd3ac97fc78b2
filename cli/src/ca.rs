//! `lateen ca`: how the mesh's certificate authority stands, and what people have it do; asked of ctrl over its admin
//! socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use crate::args::{CaAction, CaArgs, VersionFormat};
use crate::local::components::ctrl_admin;
use crate::local::manifests::DEFAULT_NAMESPACE;
use crate::state::{self, MeshDir};
use crate::{Outcome, say};

/// How long ctrl may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why it did not happen.
#[derive(Debug, thiserror::Error)]
enum CaError {
    #[error("ctrl does not answer on its admin socket ({0}); see: lateen logs ctrl")]
    Unreachable(std::io::Error),
    #[error("{0}")]
    Refused(String),
    #[error("ctrl answers what is not understood here ({0}); use the lateen that started the mesh")]
    Malformed(String),
}

/// Runs `ca`.
pub(crate) fn run(mesh: Option<&str>, namespace: Option<&str>, args: &CaArgs) -> Outcome {
    let mesh = state::select(mesh)?;
    match &args.action {
        CaAction::Status { output } => {
            let status = ask(&mesh, "GET", "/ca")?;
            match output {
                Some(VersionFormat::Json) => say(&format!("{status:#}")),
                None => say(table(&status).trim_end()),
            }
        }
        CaAction::RotateRoot { now } => {
            let status = ask(&mesh, "POST", if *now { "/ca/rotate-root?now" } else { "/ca/rotate-root" })?;
            say(&format!("{}: {}", text(&status, "phase"), text(&status, "explanation")));
        }
        CaAction::Revoke { what } => {
            let path = format!("/ca/revoke?what={}", encoded(&full(what, namespace)));
            say(&revoked(&ask(&mesh, "POST", &path)?));
        }
        CaAction::Restore { what } => {
            let path = format!("/ca/restore?what={}", encoded(&full(what, namespace)));
            let restored = ask(&mesh, "POST", &path)?;
            say(&format!("{} gets certificates again", text(&restored, "identity")));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn revoked(answer: &Value) -> String {
    let (identity, count) = (text(answer, "identity"), &answer["certificates"]);
    if answer["whole"] == true {
        format!(
            "{identity} is revoked: {count} certificates count no more, and it gets no others until: lateen ca restore \
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
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(&byte);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn table(status: &Value) -> String {
    let mut lines = vec![
        format!("authority  {}", text(status, "authority")),
        format!("phase      {}: {}", text(status, "phase"), text(status, "explanation")),
        format!(
            "issued     {} certificates that have not ended, {} of them revoked",
            status["issued"], status["revokedCertificates"]
        ),
        String::new(),
        format!("{:<13} {:<9} {:<21} {:<33} SUBJECT", "CERTIFICATE", "STATE", "NOT AFTER", "SERIAL"),
    ];
    let rows = |name: &str| status[name].as_array().cloned().unwrap_or_default();
    lines.extend(rows("certificates").iter().map(|row| {
        format!(
            "{:<13} {:<9} {:<21} {:<33} {}",
            text(row, "kind"),
            text(row, "state"),
            text(row, "notAfter"),
            text(row, "serial"),
            text(row, "subject")
        )
    }));
    let list =
        |name: &str| rows(name).iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let identities = list("revokedIdentities");
    if !identities.is_empty() {
        lines.push(format!("\nrevoked    {}", identities.join("\n           ")));
    }
    lines.extend(rows("late").iter().map(|late| {
        let (identity, holder) = (text(late, "identity"), text(late, "holder"));
        format!("late       {identity} on {holder}: ends at {} and was not renewed", text(late, "notAfter"))
    }));
    lines.extend(list("warnings").iter().map(|warning| format!("warning    {warning}")));
    lines.join("\n")
}

/// One HTTP/1.0 request: the answer ends with the connection.
fn ask(mesh: &MeshDir, method: &str, path: &str) -> Result<Value, CaError> {
    let exchange = || {
        let mut stream = UnixStream::connect(ctrl_admin(mesh))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = exchange().map_err(CaError::Unreachable)?;
    let malformed = || CaError::Malformed(answer.chars().take(200).collect());
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(CaError::Refused(body.trim().to_owned()));
    }
    serde_json::from_str(body).map_err(|_| malformed())
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
