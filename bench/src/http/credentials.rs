//! Certificates of one mesh, as files that the processes of a comparison read.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use identity::bundle::CertificateBundle;
use identity::key::PrivateKey;
use identity::tls::{self, Tls, TlsSettings};
use model::Identity;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use testkit::envoy::Credentials;

/// The identity of an account of the bench.
pub(crate) fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "bench", account)
}

/// Puts an account's where [`read`] finds them.
pub(crate) fn write(folder: &Path, account: &str, credentials: &Credentials) -> io::Result<()> {
    fs::write(folder.join(format!("{account}-chain.pem")), &credentials.chain)?;
    fs::write(folder.join(format!("{account}-key.pem")), &credentials.key)?;
    fs::write(folder.join("roots.pem"), &credentials.roots)
}

/// An account's, ready to connect and to serve.
pub(crate) fn read(folder: &Path, account: &str) -> io::Result<tls::Credentials> {
    let text = |name: String| fs::read_to_string(folder.join(name));
    let elements = [text(format!("{account}-chain.pem"))?, text("roots.pem".to_owned())?];
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{account}-key.pem")));
    let key =
        PrivateKey::from_pkcs8(key.map_err(io::Error::other)?.secret_der()).map_err(io::Error::other)?;
    let bundle = CertificateBundle::from_reply(identity(account), key, &elements, SystemTime::now());
    let bundle = bundle.map_err(io::Error::other)?;
    let tls = Tls::new(TlsSettings { secret_extraction: true, ..TlsSettings::default() });
    let trust = tls.trust(bundle.roots().clone()).map_err(io::Error::other)?;
    tls.credentials(Arc::new(bundle), &trust).map_err(io::Error::other)
}
