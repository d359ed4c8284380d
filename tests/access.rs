//! API keys, tickets, sign-in links and sessions, through the door and the store behind it.

use pulsehub::{
    access::{Access, Credential, LINK_LIFE, SESSION_LIFE, TICKET_LIFE},
    auth::{
        ApiKey, ApiKeys, AuthError, Authenticator, CredentialId, MakeError, NewApiKey, Principal,
    },
    event::PublisherName,
    grants::Grants,
    store::Store,
    time::{Clock, Millis},
    topic::{Topic, TopicPattern},
};
use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;

use crate::support::auth_config;

const NOW: Millis = 1_800_000_000_000;

/// A door over a store, as one process has it.
struct House {
    access: Access,
    store: Store,
    clock: Clock,
    folder: TempDir,
}

impl House {
    fn new() -> Self {
        Self::with("")
    }

    fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let store = Store::open(folder.path(), clock.clone()).unwrap();
        let secret = store.signing_secret().unwrap();
        let authenticator =
            Authenticator::new(&auth_config(config), &secret, &store, clock.clone()).unwrap();
        let access = Access::new(authenticator, &store, clock.clone());
        Self { access, store, clock, folder }
    }

    /// The same store as another process opens it.
    fn other_process(&self) -> Store {
        Store::open(self.folder.path(), self.clock.clone()).unwrap()
    }

    async fn make_key(&self, change: impl FnOnce(&mut NewApiKey)) -> (String, SecretString) {
        let mut new = NewApiKey {
            name: "voicehive".into(),
            grants: Grants { subscribe: vec![], publish: vec![pattern("voicehive.**")] },
            role: None,
            expires: None,
        };
        change(&mut new);
        let (key, stored) = ApiKey::make(new, NOW).unwrap();
        let id = stored.id.clone();
        ApiKeys::new(&self.store).put(stored).await.unwrap();
        (id, key)
    }

    async fn show(&self, credential: Credential) -> Result<Principal, AuthError> {
        self.access.authenticate(&credential).await.map(|principal| (*principal).clone())
    }

    async fn show_key(&self, key: &str) -> Result<Principal, AuthError> {
        self.show(Credential::Token(key.into())).await
    }

    /// Somebody with a session, and the session.
    async fn sign_in(&self, who: &Principal) -> (SecretString, Principal) {
        let code = self.access.issue_link(who).await.unwrap();
        let (session, principal) = self.access.exchange(&code).await.unwrap();
        (session, (*principal).clone())
    }

    /// How often `changes` has moved.
    fn moved(&self) -> u64 {
        *self.access.changes().borrow()
    }
}

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::parse(text).unwrap()
}

fn operator() -> Principal {
    Principal {
        name: "ada".into(),
        publisher: PublisherName::token("", "ada"),
        grants: Grants { subscribe: vec![pattern("**")], publish: vec![] },
        admin: true,
        expires: None,
        credential: CredentialId::Hub,
    }
}

fn is_invalid<T: std::fmt::Debug>(result: Result<T, AuthError>) -> bool {
    matches!(result, Err(AuthError::Invalid(_)))
}

#[tokio::test]
async fn an_api_key_admits_until_it_expires() {
    let house = House::new();
    let (id, key) = house.make_key(|new| new.expires = Some(NOW + 10)).await;
    let principal = house.show_key(key.expose_secret()).await.unwrap();
    assert_eq!((&*principal.name, principal.expires), ("voicehive", Some(NOW + 10)));
    assert_eq!(principal.credential, CredentialId::ApiKey(id));
    assert!(principal.may_publish(&Topic::parse("voicehive.calls").unwrap()));
    assert!(!principal.may_publish(&Topic::parse("other").unwrap()) && !principal.admin);

    house.clock.set(NOW + 10);
    assert_eq!(house.show_key(key.expose_secret()).await, Err(AuthError::Expired));
    assert_eq!(house.access.still_valid(&principal).await, Err(AuthError::Expired));
}

#[tokio::test]
async fn an_api_keys_role_is_united_with_its_grants() {
    let house = House::with("[roles.listener]\nsubscribe = ['calls.*']");
    let (_, key) = house.make_key(|new| new.role = Some("listener".into())).await;
    let principal = house.show_key(key.expose_secret()).await.unwrap();
    assert!(principal.may_subscribe(&pattern("calls.*")));
    assert!(principal.may_publish(&Topic::parse("voicehive.calls").unwrap()));
    let (_, gone) = house.make_key(|new| new.role = Some("removed".into())).await;
    assert!(is_invalid(house.show_key(gone.expose_secret()).await));
}

#[tokio::test]
async fn what_is_no_key_of_ours_is_refused() {
    let house = House::new();
    let (id, key) = house.make_key(|_| ()).await;
    let right = key.expose_secret();
    let long = format!("phk_{}_x", "a".repeat(200));
    for wrong in ["phk_", "phk_abc", "phk__", "phk_0000_secret", &right[..right.len() - 1], &long] {
        assert!(is_invalid(house.show_key(wrong).await), "{wrong}");
    }
    assert!(is_invalid(house.show_key(&format!("phk_{id}_")).await));
    // The store keeps a hash: the file does not hold the secret.
    // A secret may have `_` in it as well: what stands behind its last one could be anywhere.
    let secret = right.strip_prefix(&format!("phk_{id}_")).unwrap();
    for file in std::fs::read_dir(house.folder.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()));
    }
    assert!(!format!("{key:?}").contains(secret));
}

#[tokio::test]
async fn a_keys_end_is_told_only_to_who_has_its_secret() {
    let house = House::new();
    let (id, revoked) = house.make_key(|_| ()).await;
    ApiKeys::new(&house.store).revoke(&id).await.unwrap();
    let (old, _) = house.make_key(|new| new.expires = Some(NOW)).await;
    assert_eq!(house.show_key(revoked.expose_secret()).await, Err(AuthError::Revoked));
    let unknown = house.show_key("phk_0000000000000000_guess").await;
    assert!(is_invalid(unknown.clone()));
    assert_eq!(house.show_key(&format!("phk_{id}_guess")).await, unknown);
    assert_eq!(house.show_key(&format!("phk_{old}_guess")).await, unknown);
}

#[test]
fn a_keys_name_can_stand_in_a_log_line() {
    for name in [String::new(), "a\nb".into(), "a".repeat(257)] {
        let new = NewApiKey { name, grants: Grants::default(), role: None, expires: None };
        assert_eq!(ApiKey::make(new, NOW).map(|_| ()), Err(MakeError::Name));
    }
}

#[tokio::test]
async fn a_revocation_by_another_process_is_seen() {
    let house = House::new();
    let (id, key) = house.make_key(|_| ()).await;
    let principal = house.show_key(key.expose_secret()).await.unwrap();
    house.store.poll().await.unwrap();
    let before = house.moved();

    let other = house.other_process();
    assert_eq!(ApiKeys::new(&other).list().await.unwrap().len(), 1);
    assert!(ApiKeys::new(&other).revoke(&id).await.unwrap());
    assert_eq!(house.access.still_valid(&principal).await, Err(AuthError::Revoked));
    assert_eq!(house.show_key(key.expose_secret()).await, Err(AuthError::Revoked));
    house.store.poll().await.unwrap();
    assert_ne!(house.moved(), before);

    let after = house.moved();
    house.store.poll().await.unwrap();
    assert_eq!(house.moved(), after, "nothing happened since");
}

#[tokio::test]
async fn a_key_that_is_gone_counts_as_revoked() {
    let house = House::new();
    let (_, key) = house.make_key(|_| ()).await;
    let principal = house.show_key(key.expose_secret()).await.unwrap();
    let file = rusqlite::Connection::open(house.folder.path().join("store.db")).unwrap();
    assert_eq!(file.execute("DELETE FROM documents WHERE collection = 'keys'", []).unwrap(), 1);
    assert_eq!(house.access.still_valid(&principal).await, Err(AuthError::Revoked));
    assert!(is_invalid(house.show_key(key.expose_secret()).await));
}

#[tokio::test]
async fn a_foreign_revocation_after_one_of_our_own_is_not_missed() {
    let house = House::new();
    let other = house.other_process();
    // Once the two counters met by chance, the second revocation went by unseen.
    for round in 0..6 {
        let mut ids = Vec::new();
        for _ in 0..=round {
            ids.push(house.make_key(|_| ()).await.0);
        }
        let foreign = house.make_key(|_| ()).await.0;
        house.store.poll().await.unwrap();
        for id in ids {
            let before = house.moved();
            assert!(ApiKeys::new(&house.store).revoke(&id).await.unwrap());
            assert_ne!(house.moved(), before);
        }
        let before = house.moved();
        assert!(ApiKeys::new(&other).revoke(&foreign).await.unwrap());
        house.store.poll().await.unwrap();
        assert_ne!(house.moved(), before, "round {round}");
    }
}

#[tokio::test]
async fn a_foreign_revocation_before_the_first_poll_is_not_missed() {
    let house = House::new();
    let (id, _) = house.make_key(|_| ()).await;
    let before = house.moved();
    ApiKeys::new(&house.other_process()).revoke(&id).await.unwrap();
    house.store.poll().await.unwrap();
    assert_ne!(house.moved(), before);
}

#[tokio::test]
async fn only_revocations_move_changes() {
    let house = House::new();
    let before = house.moved();
    let ticket = house.access.issue_ticket(&operator()).await.unwrap();
    house.show(Credential::Ticket(ticket)).await.unwrap();
    let (session, _) = house.sign_in(&operator()).await;
    assert!(!ApiKeys::new(&house.store).revoke("none").await.unwrap());
    assert!(!house.access.end_session(&"none".into()).await.unwrap());
    assert_eq!(house.moved(), before, "every socket would ask whether it is still welcome");
    assert!(house.access.end_session(&session).await.unwrap());
    assert_ne!(house.moved(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_ticket_admits_one_of_many_who_show_it_at_once() {
    let house = House::new();
    let other = House {
        access: Access::new(
            Authenticator::new(
                &auth_config(""),
                &house.store.signing_secret().unwrap(),
                &house.other_process(),
                house.clock.clone(),
            )
            .unwrap(),
            &house.other_process(),
            house.clock.clone(),
        ),
        store: house.other_process(),
        clock: house.clock.clone(),
        folder: tempfile::tempdir().unwrap(),
    };
    for _ in 0..5 {
        let ticket = house.access.issue_ticket(&operator()).await.unwrap();
        let tasks: Vec<_> = (0..16)
            .map(|n| {
                let access = if n % 2 == 0 { house.access.clone() } else { other.access.clone() };
                let ticket = Credential::Ticket(ticket.clone());
                tokio::spawn(async move { access.authenticate(&ticket).await })
            })
            .collect();
        let mut admitted = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(principal) => {
                    assert_eq!(*principal, operator());
                    admitted += 1;
                }
                Err(error) => assert!(is_invalid::<()>(Err(error))),
            }
        }
        assert_eq!(admitted, 1);
    }
}

#[tokio::test]
async fn a_ticket_ends_after_thirty_seconds() {
    let house = House::new();
    let early = house.access.issue_ticket(&operator()).await.unwrap();
    let late = house.access.issue_ticket(&operator()).await.unwrap();
    house.clock.set(NOW + TICKET_LIFE.millis() - 1);
    assert_eq!(house.show(Credential::Ticket(early)).await, Ok(operator()));
    house.clock.set(NOW + TICKET_LIFE.millis());
    assert!(is_invalid(house.show(Credential::Ticket(late)).await));
    assert_eq!(TICKET_LIFE.millis(), 30_000);
}

#[tokio::test]
async fn a_ticket_is_no_better_than_what_it_was_made_with() {
    let house = House::new();
    let (id, key) = house.make_key(|new| new.expires = Some(NOW + 5)).await;
    let by_key = house.show_key(key.expose_secret()).await.unwrap();
    let ticket = house.access.issue_ticket(&by_key).await.unwrap();
    assert_eq!(house.show(Credential::Ticket(ticket)).await, Ok(by_key.clone()));

    let expired = house.access.issue_ticket(&by_key).await.unwrap();
    let revoked = house.access.issue_ticket(&by_key).await.unwrap();
    house.clock.set(NOW + 5);
    assert_eq!(house.show(Credential::Ticket(expired)).await, Err(AuthError::Expired));
    house.clock.set(NOW);
    ApiKeys::new(&house.store).revoke(&id).await.unwrap();
    assert_eq!(house.show(Credential::Ticket(revoked)).await, Err(AuthError::Revoked));

    let (session, signed_in) = house.sign_in(&operator()).await;
    let of_session = house.access.issue_ticket(&signed_in).await.unwrap();
    house.access.end_session(&session).await.unwrap();
    assert_eq!(house.show(Credential::Ticket(of_session)).await, Err(AuthError::Revoked));
}

#[tokio::test]
async fn a_link_signs_in_once_and_the_session_lasts_twelve_hours() {
    let house = House::new();
    let code = house.access.issue_link(&operator()).await.unwrap();
    let (session, principal) = house.access.exchange(&code).await.unwrap();
    assert!(is_invalid(house.access.exchange(&code).await), "a link is good once");
    assert!(principal.admin && matches!(principal.credential, CredentialId::Session(_)));
    assert_eq!(principal.expires, Some(NOW + SESSION_LIFE.millis()));

    let shown = house.show(Credential::Session(session.clone())).await.unwrap();
    assert_eq!(shown, *principal);
    assert_eq!(house.access.still_valid(&principal).await, Ok(()));
    house.clock.set(NOW + SESSION_LIFE.millis());
    assert!(is_invalid(house.show(Credential::Session(session)).await));
    assert_eq!(house.access.still_valid(&principal).await, Err(AuthError::Expired));

    let stale = house.access.issue_link(&operator()).await.unwrap();
    house.clock.set(NOW + SESSION_LIFE.millis() + LINK_LIFE.millis());
    assert!(is_invalid(house.access.exchange(&stale).await));
}

#[tokio::test]
async fn each_pass_is_good_for_its_own_purpose_only() {
    let house = House::new();
    let ticket = house.access.issue_ticket(&operator()).await.unwrap();
    let code = house.access.issue_link(&operator()).await.unwrap();
    let (session, _) = house.sign_in(&operator()).await;
    assert!(is_invalid(house.access.exchange(&ticket).await));
    assert!(is_invalid(house.access.exchange(&session).await));
    for secret in [&code, &session] {
        assert!(is_invalid(house.show(Credential::Ticket(secret.clone())).await));
    }
    for secret in [&code, &ticket] {
        assert!(is_invalid(house.show(Credential::Session(secret.clone())).await));
        assert!(is_invalid(house.show(Credential::Token(secret.clone())).await));
    }
    assert!(house.show(Credential::Ticket(ticket)).await.is_ok());
    assert!(house.access.exchange(&code).await.is_ok());
}

#[tokio::test]
async fn an_ended_session_is_revoked_at_once_and_for_other_processes() {
    let house = House::new();
    let (session, principal) = house.sign_in(&operator()).await;
    let mut changes = house.access.changes();
    assert!(house.access.end_session(&session).await.unwrap());
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(house.access.still_valid(&principal).await, Err(AuthError::Revoked));
    assert!(is_invalid(house.show(Credential::Session(session)).await));
}

#[tokio::test]
async fn a_session_does_not_outlive_what_its_link_was_made_with() {
    let house = House::new();
    let (id, key) = house.make_key(|new| new.expires = Some(NOW + 60_000)).await;
    let by_key = house.show_key(key.expose_secret()).await.unwrap();
    let (_, first) = house.sign_in(&by_key).await;
    assert_eq!(first.expires, Some(NOW + 60_000), "a link does not prolong a key");
    let (second_secret, second) = house.sign_in(&first).await;
    assert_eq!(house.access.still_valid(&second).await, Ok(()));

    ApiKeys::new(&house.store).revoke(&id).await.unwrap();
    for signed_in in [&first, &second] {
        assert_eq!(house.access.still_valid(signed_in).await, Err(AuthError::Revoked));
    }
    let shown = house.show(Credential::Session(second_secret)).await;
    assert_eq!(shown, Err(AuthError::Revoked));
    let code = house.access.issue_link(&by_key).await.unwrap();
    assert_eq!(house.access.exchange(&code).await.map(|_| ()), Err(AuthError::Revoked));
}

#[tokio::test]
async fn nobody_comes_without_credentials_unless_configured() {
    assert_eq!(House::new().access.anonymous(), None);
    let house = House::with("[anonymous]\nsubscribe = ['public.**']");
    let anyone = house.access.anonymous().unwrap();
    assert!(anyone.may_subscribe(&pattern("public.news")) && !anyone.may_subscribe(&pattern("a")));
    assert!(!anyone.admin && !anyone.may_publish(&Topic::parse("public.news").unwrap()));
    assert_eq!(house.access.still_valid(&anyone).await, Ok(()));
    for empty in ["", " "] {
        assert!(is_invalid(house.show(Credential::Token(empty.into())).await));
    }
}
