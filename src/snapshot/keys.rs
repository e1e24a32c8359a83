//! The keys that cookies are sealed with: read from where the config says, or the process's own.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, OnceLock};

use crate::base::seal::KeyRing;
use crate::config::model::{Key, KeyBytes, KeySource, Name, StickyCookie};
use crate::snapshot::BuildError;

/// The process's own key: of pools that name none. It outlives every reload, and ends with the process.
#[derive(Debug, Default)]
pub(super) struct Keys(OnceLock<Option<Arc<KeyRing>>>);

impl Keys {
    /// The key of a pool's cookies.
    pub(super) fn of(
        &self,
        sticky: &StickyCookie,
        named: &HashMap<Name, Arc<KeyRing>>,
    ) -> Result<Arc<KeyRing>, BuildError> {
        let (name, ring) = match &sticky.key {
            Some(name) => (name.clone(), named.get(name).cloned()),
            None => ("(own)".into(), self.0.get_or_init(|| KeyRing::random().map(Arc::new)).clone()),
        };
        ring.ok_or_else(|| BuildError::Key { key: name, fault: "no random bytes are to be had".to_owned() })
    }
}

/// Reads the secrets of all keys.
pub(super) fn read(keys: &[Arc<Key>]) -> Result<HashMap<Name, Arc<KeyRing>>, BuildError> {
    let ring = |key: &Arc<Key>| {
        let fault = |fault: String| BuildError::Key { key: key.name.clone(), fault };
        let secrets = key.secrets.iter().map(secret).collect::<Result<Vec<_>, _>>().map_err(fault)?;
        let ring = KeyRing::new(secrets).ok_or_else(|| fault(KeyBytes::FAULT.to_owned()))?;
        Ok((key.name.clone(), Arc::new(ring)))
    };
    keys.iter().map(ring).collect()
}

fn secret(source: &KeySource) -> Result<[u8; 32], String> {
    match source {
        KeySource::Value(bytes) => Ok(bytes.0),
        KeySource::File(path) => {
            let text =
                fs::read_to_string(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
            // Never the text itself: faults are logged.
            let bytes = KeyBytes::from_text(&text);
            Ok(bytes.ok_or_else(|| format!("`{}`: {}", path.display(), KeyBytes::FAULT))?.0)
        }
    }
}
