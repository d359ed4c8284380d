//! An API key for one instance, good for nothing but its own affairs.

use secrecy::SecretString;

use super::{InstanceError, Instances, OwnKey, record};
use crate::{
    auth::{ApiKey, MakeError, NewApiKey},
    grants::Grants,
    ingest::{AppName, InstanceId},
    store::StoreError,
    time::Moment,
    topic::TopicPattern,
};

/// What the names of such keys begin with.
const PREFIX: &str = "instance:";

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
}

impl Instances {
    /// Makes a key for an instance, which is shown this once; any key it had is good no longer.
    ///
    /// It may publish the application's usage data and speak for this instance, and no other.
    pub async fn rotate_key(
        &self,
        app: &AppName,
        id: &InstanceId,
    ) -> Result<SecretString, KeyError> {
        let now = self.0.clock.now();
        let mut record = self.get(app, id).ok_or(InstanceError::Unknown)?;
        let publish = ["instances", "usage.**"].map(|place| format!("{app}.{place}"));
        let publish = publish.iter().filter_map(|text| TopicPattern::parse(text).ok()).collect();
        let grants = Grants { subscribe: Vec::new(), publish };
        let new = NewApiKey { name: key_name(app, id), grants, role: None, expires: None };
        let (key, stored) = ApiKey::make(new, now)?;
        let key_id = stored.id.clone();
        self.0.store.put_key(stored).await?;
        record.key = Some(OwnKey { at: Moment(now), id: key_id.clone() });
        let told = record.event("instance.key", None, now).map_err(InstanceError::from)?;
        if let Err(error) = self.publish(vec![told]).await {
            // A key that nobody was shown must not stay.
            self.0.store.revoke_key(&key_id).await?;
            return Err(error.into());
        }
        self.revoke_keys(app, id, Some(&key_id)).await?;
        Ok(key)
    }

    /// Takes an instance and its key out of the registry. If it is heard from again, it is new.
    pub async fn forget(&self, app: &AppName, id: &InstanceId) -> Result<(), KeyError> {
        if self.get(app, id).is_none() {
            return Err(InstanceError::Unknown.into());
        }
        self.revoke_keys(app, id, None).await?;
        let removal = record::removal(app, id, self.0.clock.now()).map_err(InstanceError::from)?;
        self.publish(vec![removal]).await?;
        // One that was made meanwhile would be good for ever, and in no list.
        Ok(self.revoke_keys(app, id, None).await?)
    }

    /// By name, so that none is left over from an attempt that broke off.
    async fn revoke_keys(
        &self,
        app: &AppName,
        id: &InstanceId,
        but: Option<&str>,
    ) -> Result<(), StoreError> {
        let name = key_name(app, id);
        for key in self.0.store.keys().await? {
            if key.name == name && !key.revoked && but != Some(key.id.as_str()) {
                self.0.store.revoke_key(&key.id).await?;
            }
        }
        Ok(())
    }
}

fn key_name(app: &AppName, id: &InstanceId) -> String {
    format!("{PREFIX}{app}/{id}")
}

/// Whether credentials of this name are the key of another instance than this.
pub fn is_of_another(name: &str, app: &AppName, id: &InstanceId) -> bool {
    name.starts_with(PREFIX) && name != key_name(app, id)
}
