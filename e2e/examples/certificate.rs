//! What a proxy that is not ours does first: asks the mesh's controller for the certificate of its own pod, with a token
//! of its own. With `"impersonate": true` as an agent does it, which asks for others.
//!
//! `certificate IDENTITY`, with `{"address", "roots", "token"}` on stdin; prints `{"chain", "key", "roots"}`, all PEM.

use std::io::Read;

use identity::authority::CertificateAuthority;
use identity::ca_client::{CaClient, CaClientSettings};
use identity::control_plane::{ControlPlane, ControlPlaneSettings};
use identity::tls::{Tls, TlsSettings};
use serde_json::{Value, json};
use testkit::envoy::Credentials;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let identity = std::env::args().nth(1).ok_or("certificate IDENTITY")?.parse()?;
    let mut given = String::new();
    std::io::stdin().read_to_string(&mut given)?;
    let given: Value = serde_json::from_str(&given)?;
    let text = |name: &str| given[name].as_str().ok_or(format!("no {name} on stdin"));

    let folder = tempfile::tempdir()?;
    let (roots, token) = (folder.path().join("roots"), folder.path().join("token"));
    std::fs::write(&roots, text("roots")?)?;
    std::fs::write(&token, text("token")?)?;
    let controller = ControlPlaneSettings::new(text("address")?, roots);
    let channel = ControlPlane::new(&Tls::new(TlsSettings::default()), &controller)?.channel();
    let impersonate = given["impersonate"].as_bool().unwrap_or(false);
    let settings = CaClientSettings { token_file: Some(token), impersonate, ..CaClientSettings::default() };
    let bundle = CaClient::new(channel, settings)?.issue(&identity).await?;

    let Credentials { chain, key, roots, .. } = Credentials::of(&bundle);
    println!("{}", json!({ "chain": chain, "key": key, "roots": roots }));
    Ok(())
}
