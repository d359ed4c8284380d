//! An API key for one instance, good for nothing but its own affairs.

use std::{cmp::Ordering, sync::Arc};

use secrecy::SecretString;

use super::{InstanceError, InstanceRecord, OwnKey, known::KnownInstances, record};
use crate::{
    admission::{Claim, key_grants, key_name},
    auth::{ApiKey, ApiKeys, MakeError, NewApiKey, StoredKey},
    broker::PublishError,
    event::{AppName, InstanceId},
    store::StoreError,
    time::{Clock, Millis, Timestamp},
};

/// Why an instance got no key, or was not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The registry.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// No key could be made.
    #[error(transparent)]
    Make(#[from] MakeError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A newer key was made at the same time.
    #[error("somebody made a newer key for this instance at the same time: that one is good")]
    Superseded,
    /// What became of the key cannot be told, so that it and those before it were taken back.
    #[error("it cannot be told what became of the key, so that the instance has none: ask again")]
    Behind,
}

/// The API keys of instances. Cheap to clone.
#[derive(Clone)]
pub struct InstanceKeys {
    known: Arc<KnownInstances>,
    pub(super) keys: ApiKeys,
    clock: Clock,
}

impl InstanceKeys {
    pub(super) fn new(known: Arc<KnownInstances>, clock: Clock) -> Self {
        Self { keys: ApiKeys::new(known.store()), known, clock }
    }

    /// Makes a key for an instance, which is shown this once; any key it had is good no longer.
    ///
    /// It speaks for this instance, and no other. Of several that are made at once the newest stays,
    /// on whatever nodes: each is put into the store before it is asked which others are there, so
    /// that of any two at least one sees the other.
    pub async fn rotate(&self, app: &AppName, id: &InstanceId) -> Result<SecretString, KeyError> {
        let known = self.known.read().get(app, id).cloned().ok_or(InstanceError::Unknown)?;
        let (name, grants) = (key_name(app, id), key_grants(app));
        let new = NewApiKey { name, grants, role: None, expires: None };
        // Newer than those before it by whatever clock, so that who comes later is not refused.
        let newest = self.keys_of(app, id).await?.iter().map(|key| key.created + 1).max();
        let made = newest.unwrap_or(0).max(self.clock.now());
        let (key, stored) = ApiKey::make(new, made)?;
        let own = OwnKey { at: Timestamp(made), id: stored.id.clone() };
        self.keys.put(stored).await?;
        match self.tell_key(known, &own).await {
            Ok(()) => {
                self.revoke_keys(app, id, |key| age(key) < (made, &own.id)).await?;
                Ok(key)
            }
            // The registry may name this one by now, so that one before it would be in no list.
            Err(KeyError::Behind) => {
                self.revoke_keys(app, id, |key| age(key) <= (made, &own.id)).await?;
                Err(KeyError::Behind)
            }
            Err(error) => {
                // A key that was shown to nobody must not stay valid.
                self.keys.revoke(&own.id).await?;
                Err(error)
            }
        }
    }

    /// What is to be shown by whoever wants to speak for an instance.
    pub fn claim<'a>(&self, app: &'a AppName, id: &'a InstanceId) -> Claim<'a> {
        let registry = self.known.read();
        let has_key = registry.get(app, id).is_some_and(|record| record.key.is_some());
        Claim { app, id, has_key }
    }

    /// Tells of a key that is in the store, unless a newer one is there or the instance is gone.
    async fn tell_key(&self, mut record: InstanceRecord, own: &OwnKey) -> Result<(), KeyError> {
        let (app, id) = (record.app.clone(), record.instance_id.clone());
        let keys = self.keys_of(&app, &id).await?;
        if keys.iter().any(|key| !key.revoked && age(key) > (own.at.0, &own.id)) {
            return Err(KeyError::Superseded);
        }
        record.key = Some(own.clone());
        let told = record.event("instance.key", None, self.clock.now());
        match self.known.publish(told.map_err(InstanceError::from)?.into()).await {
            Err(InstanceError::Publish(error @ PublishError::Unknown { .. })) => {
                tracing::warn!(%error, "the key of an instance is taken back");
                return Err(KeyError::Behind);
            }
            published => published?,
        }
        // If its instance was forgotten meanwhile, the key would stay valid and appear in no list.
        let known = self.known.read().get(&app, &id).cloned().ok_or(InstanceError::Unknown)?;
        match known.key.as_ref().cmp(&Some(own)) {
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(KeyError::Superseded),
            Ordering::Less => Err(KeyError::Behind),
        }
    }

    /// Takes an instance and its key out of the registry. If it is heard from again, it is new.
    pub async fn forget(&self, app: &AppName, id: &InstanceId) -> Result<(), KeyError> {
        if self.known.read().get(app, id).is_none() {
            return Err(InstanceError::Unknown.into());
        }
        self.revoke_keys(app, id, |_| true).await?;
        let removal = record::removal(app, id, self.clock.now()).map_err(InstanceError::from)?;
        self.known.publish(removal.into()).await?;
        // One that was made meanwhile.
        Ok(self.revoke_keys(app, id, |_| true).await?)
    }

    /// By name, so that none is left over from an attempt that broke off.
    async fn revoke_keys(
        &self,
        app: &AppName,
        id: &InstanceId,
        which: impl Fn(&StoredKey) -> bool,
    ) -> Result<(), StoreError> {
        for key in self.keys_of(app, id).await? {
            if !key.revoked && which(&key) {
                self.keys.revoke(&key.id).await?;
            }
        }
        Ok(())
    }

    /// All the keys an instance ever had.
    async fn keys_of(&self, app: &AppName, id: &InstanceId) -> Result<Vec<StoredKey>, StoreError> {
        self.keys.named(&key_name(app, id)).await
    }
}

/// By what a key is newer than another.
fn age(key: &StoredKey) -> (Millis, &String) {
    (key.created, &key.id)
}
