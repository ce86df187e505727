//! Registers in this process's memory, gone with it: for `memory:` logs and tests.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::metastore::{MetaError, MetaStore, Version, Versioned};

/// A MetaStore in memory.
#[derive(Debug, Default)]
pub struct MemoryMetaStore {
    /// A deleted register stays, without a value: its versions go on.
    registers: Mutex<BTreeMap<String, Versioned>>,
    changed: Notify,
}

impl MemoryMetaStore {
    /// A MetaStore without any registers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn read(&self, name: &str) -> Versioned {
        let registers = self.registers.lock().expect("no panic under this lock");
        registers.get(name).cloned().unwrap_or(Versioned { value: None, version: 0 })
    }
}

#[async_trait]
impl MetaStore for MemoryMetaStore {
    async fn get(&self, name: &str) -> Result<Versioned, MetaError> {
        Ok(self.read(name))
    }

    async fn put_if(
        &self,
        name: &str,
        value: Option<Bytes>,
        expected: Version,
    ) -> Result<Version, MetaError> {
        let version = {
            let mut registers = self.registers.lock().expect("no panic under this lock");
            let current = registers.get(name).cloned();
            let current = current.unwrap_or(Versioned { value: None, version: 0 });
            if current.version != expected {
                return Err(MetaError::Conflict { current });
            }
            let version = expected + 1;
            registers.insert(name.into(), Versioned { value, version });
            version
        };
        self.changed.notify_waiters();
        Ok(version)
    }

    async fn watch(&self, name: &str, after: Version) -> Result<Versioned, MetaError> {
        loop {
            // Enlisted before the look, so that a change after the look is not missed.
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let current = self.read(name);
            if current.version > after {
                return Ok(current);
            }
            changed.await;
        }
    }

    async fn list(&self) -> Result<Vec<String>, MetaError> {
        let registers = self.registers.lock().expect("no panic under this lock");
        let named = registers.iter().filter(|(_, register)| register.value.is_some());
        Ok(named.map(|(name, _)| name.clone()).collect())
    }
}
