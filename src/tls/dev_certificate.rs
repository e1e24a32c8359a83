//! A certificate for development: `headgate dev-cert`.
//!
//! The CA's key is never written: it signs one leaf and is gone, so a CA that a developer's browser trusts can be
//! used by nobody for anything else.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::base::clock;
use crate::config::model::CertificateFiles;
use crate::tls::certificates::{self, CertificateInfo};

/// Most clients refuse a wildcard right below a top-level name, so the demo's name is there in full.
const NAMES: &[&str] = &["localhost", "*.localhost", "notes.localhost", "127.0.0.1", "::1"];
const DAY: u64 = 24 * 60 * 60;
/// Browsers refuse leaves that are valid for longer than 398 days.
const LIFETIME: u64 = 397 * DAY;
/// What is valid for less than this is made anew.
const RENEW_BEFORE: u64 = 7 * DAY;

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevCertificate {
    /// The CA's certificate, for clients to trust.
    pub ca: PathBuf,
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The leaf's key; only its owner may read it.
    pub key: PathBuf,
    /// Whether the files were made now, or were there and still good.
    pub created: bool,
}

/// Why there is no development certificate.
#[derive(Debug, thiserror::Error)]
pub enum DevCertificateError {
    /// A file or directory cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The certificate cannot be made.
    #[error("the certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Leaves `ca.pem`, `localhost.pem` and `localhost.key` in `dir`; keeps those that are there and good for a week.
pub fn write_dev_certificate(dir: &Path) -> Result<DevCertificate, DevCertificateError> {
    let (ca, cert, key) = (dir.join("ca.pem"), dir.join("localhost.pem"), dir.join("localhost.key"));
    let now = clock::unix_millis() / 1000;
    if is_good(&ca, &cert, &key, now) {
        return Ok(DevCertificate { ca, cert, key, created: false });
    }
    let made = make(now)?;
    fs::create_dir_all(dir).map_err(|source| DevCertificateError::Write { path: dir.to_owned(), source })?;
    for (path, text, mode) in
        [(&key, &made.key, 0o600), (&cert, &format!("{}{}", made.leaf, made.ca), 0o644), (&ca, &made.ca, 0o644)]
    {
        write(path, text, mode).map_err(|source| DevCertificateError::Write { path: path.clone(), source })?;
    }
    Ok(DevCertificate { ca, cert, key, created: true })
}

fn is_good(ca: &Path, cert: &Path, key: &Path, now: u64) -> bool {
    let Ok(pair) = certificates::load(&CertificateFiles { cert: cert.to_owned(), key: key.to_owned() }) else {
        return false;
    };
    // The chain ends in the CA, so a `ca.pem` from another run is noticed.
    let Ok(ca) = CertificateDer::from_pem_file(ca) else { return false };
    if pair.cert.last() != Some(&ca) {
        return false;
    }
    CertificateInfo::of(&pair).is_some_and(|info| {
        let names = NAMES.iter().all(|name| info.names.iter().any(|has| has == name));
        names && info.not_after_unix > (now + RENEW_BEFORE) as i64
    })
}

struct Made {
    ca: String,
    leaf: String,
    key: String,
}

fn make(now: u64) -> Result<Made, rcgen::Error> {
    let ca_key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // A name of its own for each, so that a trust store never mixes up two of them.
    ca.distinguished_name = distinguished(&format!("headgate development CA {now}"));
    valid(&mut ca, now);
    let ca_certificate = ca.self_signed(&ca_key)?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let names: Vec<String> = NAMES.iter().map(|&name| name.to_owned()).collect();
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name = distinguished("localhost");
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    valid(&mut leaf, now);
    let leaf = leaf.signed_by(&key, &issuer)?;
    Ok(Made { ca: ca_certificate.pem(), leaf: leaf.pem(), key: key.serialize_pem() })
}

fn distinguished(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn valid(params: &mut CertificateParams, now: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // An hour back, for containers whose clock is behind.
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(3600));
    params.not_after = epoch + Duration::from_secs(now + LIFETIME);
}

/// Replaces `path` whole; the mode is there from the first byte on.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    // What a killed run left may have another mode.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_run_keeps_the_files_and_a_broken_pair_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("certs");
        let first = write_dev_certificate(&dir).unwrap();
        assert!(first.created);
        assert_eq!(fs::metadata(&first.key).unwrap().permissions().mode() & 0o777, 0o600);
        let before = fs::read(&first.cert).unwrap();

        assert!(!write_dev_certificate(&dir).unwrap().created);
        assert_eq!(fs::read(&first.cert).unwrap(), before);

        fs::write(&first.key, "").unwrap();
        assert!(write_dev_certificate(&dir).unwrap().created);
        assert_ne!(fs::read(&first.cert).unwrap(), before);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
    }

    #[test]
    fn what_ends_within_a_week_is_not_good() {
        let dir = tempfile::tempdir().unwrap();
        let made = write_dev_certificate(dir.path()).unwrap();
        let now = clock::unix_millis() / 1000;
        assert!(is_good(&made.ca, &made.cert, &made.key, now + LIFETIME - RENEW_BEFORE - DAY));
        assert!(!is_good(&made.ca, &made.cert, &made.key, now + LIFETIME - RENEW_BEFORE + DAY));
        assert!(!is_good(&made.cert, &made.cert, &made.key, now));
    }
}
