//! Searches through the log that take long: few at a time, and of these fewer for each user, so that nobody waits for
//! all that one user asks for.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Searches at a time.
const AT_A_TIME: usize = 4;
/// Of these, one user's.
const OF_ONE: usize = 2;

/// Lets in whoever searches, each user's in the order in which they came.
pub(super) struct Searches {
    room: Semaphore,
    /// Of users who search or wait, what they may have at a time.
    users: Mutex<HashMap<Arc<str>, Arc<Semaphore>>>,
}

/// A search under way.
pub struct SearchPlace<'a> {
    _room: Option<SemaphorePermit<'a>>,
    _own: Option<UserPlace<'a>>,
}

/// A user's place, which is forgotten with the last of theirs.
struct UserPlace<'a> {
    searches: &'a Searches,
    user: Arc<str>,
    places: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Default for Searches {
    fn default() -> Self {
        Self { room: Semaphore::new(AT_A_TIME), users: Mutex::default() }
    }
}

impl Searches {
    /// Waits for room; to be kept until the search is over. Without a user it is the hub's own.
    pub(super) async fn begin(&self, user: Option<&Arc<str>>) -> SearchPlace<'_> {
        let own = match user {
            Some(user) => {
                let mut own = self.enter(user);
                // Never closed; if it were, the room alone would do.
                let places = own.places.clone().unwrap_or_else(|| Arc::new(Semaphore::new(1)));
                own.permit = places.acquire_owned().await.ok();
                Some(own)
            }
            None => None,
        };
        SearchPlace { _room: self.room.acquire().await.ok(), _own: own }
    }

    fn enter(&self, user: &Arc<str>) -> UserPlace<'_> {
        let mut users = self.users.lock();
        let places = users.entry(user.clone()).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE)));
        UserPlace { searches: self, user: user.clone(), places: Some(places.clone()), permit: None }
    }
}

impl Drop for UserPlace<'_> {
    fn drop(&mut self) {
        let mut users = self.searches.users.lock();
        (self.permit, self.places) = (None, None);
        // Nobody else has it, and nobody comes by it while this is locked.
        if users.get(&self.user).is_some_and(|places| Arc::strong_count(places) == 1) {
            users.remove(&self.user);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn everybody_waited_for_all_searches_of_one_user() {
        let searches = Searches::default();
        let (ada, bob): (Arc<str>, Arc<str>) = ("ada".into(), "bob".into());
        let begin = |user: &Arc<str>| searches.begin(Some(user)).now_or_never();
        let mut adas: Vec<_> = (0..OF_ONE).map(|_| begin(&ada).unwrap()).collect();
        assert!(begin(&ada).is_none(), "one more waits");
        let bobs: Vec<_> = (0..OF_ONE).map(|_| begin(&bob).unwrap()).collect();
        assert!(searches.begin(None).now_or_never().is_none(), "there are only so many places");
        adas.pop();
        assert!(begin(&ada).is_some());
        drop((adas, bobs));
        assert!(searches.users.lock().is_empty());
        assert_eq!(searches.room.available_permits(), AT_A_TIME);
    }
}
