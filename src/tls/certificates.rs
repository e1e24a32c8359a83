//! Certificate chains and their keys, from PEM files.

use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::model::CertificateFiles;
use crate::tls::provider;

/// Why a certificate cannot be used: the file, what is wrong with it, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CertificateError {
    /// The file at fault.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// What its owner can do.
    pub remedy: String,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path.display(), self.what, self.remedy)
    }
}

fn fault(path: &Path, what: impl Into<String>, remedy: impl Into<String>) -> CertificateError {
    CertificateError { path: path.to_owned(), what: what.into(), remedy: remedy.into() }
}

/// Reads a chain and its key, and proves that they belong together.
pub fn load(files: &CertificateFiles) -> Result<Arc<CertifiedKey>, CertificateError> {
    from_pem(files, &read(&files.cert)?, &read(&files.key)?)
}

/// The same from bytes that were read before; `files` only names them in errors.
///
/// Whoever watches the files hashes and loads the same bytes, so that it never loads what it did not hash.
pub fn from_pem(files: &CertificateFiles, cert: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(cert)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| fault(&files.cert, format!("not valid PEM: {error}"), "write the chain as PEM, leaf first"))?;
    if chain.is_empty() {
        return Err(match PrivateKeyDer::from_pem_slice(cert) {
            Ok(_) => fault(&files.cert, "holds a private key and no certificate", "swap `cert` and `key`"),
            Err(_) => fault(&files.cert, "holds no certificate", "write the chain as PEM, leaf first"),
        });
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            fault(&files.key, "holds no private key", "write an unencrypted PKCS#8, PKCS#1 or SEC1 key as PEM")
        }
        error => fault(&files.key, format!("not valid PEM: {error}"), "write an unencrypted key as PEM"),
    })?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| {
        fault(
            &files.key,
            format!("no usable private key: {error}"),
            "use an RSA (2048 bit or more), ECDSA or Ed25519 key",
        )
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown means that the key cannot show its public half; none of the provider's keys is such.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(Error::InconsistentKeys(_)) => {
            return Err(fault(
                &files.cert,
                format!("does not belong to the key in {}", files.key.display()),
                "replace both files, or put the leaf certificate first",
            ));
        }
        Err(error) => {
            return Err(fault(&files.cert, format!("no usable certificate: {error}"), "use an X.509 v3 certificate"));
        }
    }
    match CertificateInfo::of(&certified) {
        Some(_) => Ok(Arc::new(certified)),
        None => Err(fault(&files.cert, "no readable certificate", "use an X.509 v3 certificate")),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|error| {
        fault(path, format!("cannot be read: {error}"), "check the path and that headgate's user may read it")
    })
}

/// What a leaf certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CertificateInfo {
    /// DNS names (lower case) and IP addresses that it is for, in its own order.
    pub names: Vec<String>,
    /// When it begins to be valid, in seconds since the Unix epoch.
    pub not_before_unix: i64,
    /// When it ends, likewise.
    pub not_after_unix: i64,
}

impl CertificateInfo {
    /// Of a loaded pair; none where the leaf cannot be parsed, which [`load`] has ruled out.
    pub fn of(key: &CertifiedKey) -> Option<Self> {
        Self::of_der(key.cert.first()?)
    }

    /// Of one certificate.
    pub fn of_der(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
        let validity = leaf.validity();
        let names = match leaf.subject_alternative_name().ok()? {
            Some(names) => names.value.general_names.iter().filter_map(name).collect(),
            None => Vec::new(),
        };
        Some(Self {
            names,
            not_before_unix: validity.not_before.timestamp(),
            not_after_unix: validity.not_after.timestamp(),
        })
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| IpAddr::from(bytes).to_string()),
        },
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes a self-signed certificate for `names` and its key.
    pub(crate) fn self_signed(dir: &Path, stem: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let files = CertificateFiles { cert: dir.join(format!("{stem}.pem")), key: dir.join(format!("{stem}.key")) };
        fs::write(&files.cert, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_pair_loads_and_tells_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let files = self_signed(dir.path(), "a", &["A.example", "*.b.example", "127.0.0.1", "::1"]);
        let info = CertificateInfo::of(&load(&files).unwrap()).unwrap();
        assert_eq!(info.names, ["a.example", "*.b.example", "127.0.0.1", "::1"]);
        assert!(info.not_before_unix < info.not_after_unix);
    }

    #[test]
    fn a_half_changed_pair_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let old = self_signed(dir.path(), "old", &["a.example"]);
        let new = self_signed(dir.path(), "new", &["a.example"]);
        let error = load(&CertificateFiles { cert: new.cert.clone(), key: old.key.clone() }).unwrap_err();
        assert_eq!(error.path, new.cert);
        assert!(error.what.contains("does not belong to the key in"), "{error}");
        assert!(error.to_string().contains("replace both files"), "{error}");
    }

    #[test]
    fn faulty_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let good = self_signed(dir.path(), "good", &["a.example"]);
        let missing = dir.path().join("missing.pem");
        let empty = dir.path().join("empty.pem");
        let broken = dir.path().join("broken.pem");
        fs::write(&empty, "").unwrap();
        fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        for (cert, key, path, what) in [
            (&missing, &good.key, &missing, "cannot be read"),
            (&empty, &good.key, &empty, "holds no certificate"),
            (&broken, &good.key, &broken, "no usable certificate"),
            (&good.key, &good.cert, &good.key, "holds a private key and no certificate"),
            (&good.cert, &empty, &empty, "holds no private key"),
            (&good.cert, &good.cert, &good.cert, "holds no private key"),
        ] {
            let error = load(&CertificateFiles { cert: cert.clone(), key: key.clone() }).unwrap_err();
            assert_eq!(&error.path, path, "{error}");
            assert!(error.what.contains(what), "{error}");
        }
    }
}
