//! Turns for work that takes long: few at a time, and fewer for each user, so that nobody waits for all the work of one
//! user.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinError,
};

/// Turns at a time: each may hold some tens of MB, and work for a second.
const AT_A_TIME: usize = 4;
/// Of these, one user's.
const OF_ONE: usize = 2;

/// Gives turns, each user's in the order in which they came. Cheap to clone.
#[derive(Clone)]
pub struct Turns {
    room: Arc<Semaphore>,
    /// Of users who are at work or wait, what they may have at a time.
    users: Arc<Mutex<HashMap<Arc<str>, Arc<Semaphore>>>>,
}

/// A turn that somebody has, until it is dropped.
pub struct Turn {
    _room: Option<OwnedSemaphorePermit>,
    _own: Option<UserPlace>,
}

/// A user's place, which is forgotten with the last of theirs.
struct UserPlace {
    turns: Turns,
    user: Arc<str>,
    places: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(AT_A_TIME)), users: Arc::default() }
    }
}

impl Turns {
    /// Works when it is its turn; work without a user is the hub's own. Work that has begun keeps its turn to its end,
    /// even if the caller has gone, because reading a file cannot be interrupted.
    pub async fn run<T: Send + 'static>(
        &self,
        user: Option<&Arc<str>>,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, JoinError> {
        let turn = self.begin(user).await;
        let worked = tokio::spawn(async move {
            let _turn = turn;
            work.await
        });
        worked.await
    }

    /// Waits for a turn.
    pub async fn begin(&self, user: Option<&Arc<str>>) -> Turn {
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
        Turn { _room: self.room.clone().acquire_owned().await.ok(), _own: own }
    }

    fn enter(&self, user: &Arc<str>) -> UserPlace {
        let mut users = self.users.lock();
        let places = users.entry(user.clone()).or_insert_with(|| Arc::new(Semaphore::new(OF_ONE)));
        let turns = self.clone();
        UserPlace { turns, user: user.clone(), places: Some(places.clone()), permit: None }
    }
}

impl Drop for UserPlace {
    fn drop(&mut self) {
        let mut users = self.turns.users.lock();
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
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn everybody_waited_for_all_that_one_user_asked_for() {
        let turns = Turns::default();
        let (ada, bob): (Arc<str>, Arc<str>) = ("ada".into(), "bob".into());
        let begin = |user: &Arc<str>| turns.begin(Some(user)).now_or_never();
        let mut adas: Vec<_> = (0..OF_ONE).map(|_| begin(&ada).unwrap()).collect();
        assert!(begin(&ada).is_none(), "one more waits");
        let bobs: Vec<_> = (0..OF_ONE).map(|_| begin(&bob).unwrap()).collect();
        assert!(turns.begin(None).now_or_never().is_none(), "there are only so many places");
        adas.pop();
        assert!(begin(&ada).is_some());
        drop((adas, bobs));
        assert!(turns.users.lock().is_empty());
        assert_eq!(turns.room.available_permits(), AT_A_TIME);
    }

    #[tokio::test]
    async fn who_gave_up_left_work_behind_that_nobody_counted() {
        let turns = Turns::default();
        let ada: Arc<str> = "ada".into();
        let (mut ends, mut begun) = (Vec::new(), Vec::new());
        for _ in 0..OF_ONE {
            let (end, ended) = oneshot::channel::<()>();
            assert!(turns.run(Some(&ada), ended).now_or_never().is_none());
            ends.push(end);
        }
        assert!(turns.begin(Some(&ada)).now_or_never().is_none(), "they go on");
        for end in ends {
            end.send(()).unwrap();
            begun.push(turns.begin(Some(&ada)).await);
        }
    }
}
