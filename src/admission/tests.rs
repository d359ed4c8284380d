//! Who may publish what, a line for each rule.

use serde_json::value::RawValue;

use super::*;
use crate::{auth::CredentialId, event::PublisherName, grants::Grants, topic::TopicPattern};

fn topic(text: &str) -> Topic {
    Topic::parse(text).unwrap()
}

fn app(name: &str) -> AppName {
    AppName::parse(name).unwrap()
}

fn id(name: &str) -> InstanceId {
    InstanceId::parse(name).unwrap()
}

/// Rules with `board` among the hub's own topics, for batches of three events of 100 bytes.
fn admission() -> Admission {
    let own = [topic("board")].into_iter().collect();
    Admission::new(own, BatchLimits { event: 100, batch: 3 })
}

fn principal(name: &str, publish: &[&str]) -> Principal {
    let publish = publish.iter().map(|text| TopicPattern::parse(text).unwrap()).collect();
    Principal {
        name: name.into(),
        publisher: PublisherName::key(name),
        grants: Grants { subscribe: Vec::new(), publish },
        admin: false,
        expires: None,
        credential: CredentialId::Token,
    }
}

/// Who shows the key that was made for an instance.
fn own_key(app_name: &str, instance: &str) -> Principal {
    let (app, id) = (app(app_name), id(instance));
    Principal { grants: key_grants(&app), ..principal(&key_name(&app, &id), &[]) }
}

fn event(on: &str, source: &str, data: &str) -> Event {
    Event {
        topic: topic(on),
        id: "1".into(),
        id_is_ours: false,
        publisher: PublisherName::key("ci"),
        source: source.into(),
        kind: None,
        time: "2026-11-20T12:00:00Z".into(),
        key: None,
        data: RawValue::from_string(data.to_owned()).unwrap(),
    }
}

/// What becomes of events by `one` on these topics.
fn outcome(who: &Principal, claim: Option<&Claim<'_>>, topics: &[&str]) -> String {
    let events = topics.iter().map(|on| event(on, "one", "1")).collect();
    told(admission().admit(who, claim, events))
}

fn told(outcome: Result<Admitted, Refused>) -> String {
    match outcome {
        Ok(admitted) => format!("{} admitted", admitted.len()),
        Err(Refused::Topics(topics)) => {
            topics.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        Err(refused) => refused.to_string(),
    }
}

#[test]
fn grants_say_on_which_topics_somebody_publishes_and_none_opens_those_of_the_hub() {
    let ci = principal("ci", &["builds.*", "a"]);
    let all = principal("root", &["**", "hub.**", "board"]);
    for (who, topics, want) in [
        (&ci, &["a"][..], "1 admitted"),
        (&ci, &["builds.x", "a", "builds.y"], "3 admitted"),
        (&ci, &[], "0 admitted"),
        (&ci, &["b"], "no grant to publish to b"),
        (&ci, &["a", "c", "b"], "no grant to publish to c, no grant to publish to b"),
        (&ci, &["b", "b"], "no grant to publish to b"),
        (&ci, &["builds.x.y"], "no grant to publish to builds.x.y"),
        (&principal("nobody", &[]), &["a"], "no grant to publish to a"),
        (&all, &["a", "b.c"], "2 admitted"),
        (&all, &["hub.metrics"], "nobody but the hub publishes to hub.metrics"),
        (&all, &["hub"], "nobody but the hub publishes to hub"),
        (&all, &["board"], "nobody but the hub publishes to board"),
        (
            &ci,
            &["b", "board", "a"],
            "no grant to publish to b, nobody but the hub publishes to board",
        ),
        // The hub admits its own events in another way: this name opens nothing.
        (&Principal::hub(), &["hub.metrics"], "nobody but the hub publishes to hub.metrics"),
    ] {
        assert_eq!(outcome(who, None, topics), want, "{} on {topics:?}", who.name);
    }
}

#[test]
fn an_instances_own_key_speaks_for_it_alone_and_nothing_else_for_one_that_has_a_key() {
    let (tt, one) = (app("tt"), id("one"));
    let (new, locked) =
        (Claim { app: &tt, id: &one, has_key: false }, Claim { app: &tt, id: &one, has_key: true });
    let (own, others) = (own_key("tt", "one"), own_key("tt", "two"));
    let (elsewhere, wide) = (own_key("other", "one"), principal("wide", &["tt.**"]));
    let usage = principal("usage", &["tt.usage.**"]);
    let named = principal("instance:tt/one", &[]);
    let (usages, needs_key) = (["tt.usage.x"], "it takes the key of instance tt/one");
    for (who, claim, topics, want) in [
        (&own, Some(&new), &usages[..], "1 admitted"),
        (&own, Some(&locked), &usages, "1 admitted"),
        (&own, None, &usages, "no grant to publish to tt.usage.x"),
        (&own, Some(&locked), &["tts.x"], "no grant to publish to tts.x"),
        (&own, Some(&locked), &["tt"], "no grant to publish to tt"),
        (
            &own,
            Some(&locked),
            &["hub.instances.tt"],
            "nobody but the hub publishes to hub.instances.tt",
        ),
        (&others, Some(&new), &usages, needs_key),
        (&elsewhere, Some(&new), &usages, needs_key),
        (&wide, Some(&new), &usages, "1 admitted"),
        (&wide, Some(&locked), &usages, needs_key),
        (&usage, Some(&new), &usages, "1 admitted"),
        (&usage, Some(&new), &["tt.x"], "no grant to publish to tt.x"),
        // A name that anybody may have is no key.
        (&named, Some(&new), &usages, "no grant to publish to tt.usage.x"),
        (&named, Some(&locked), &usages, needs_key),
    ] {
        assert_eq!(outcome(who, claim, topics), want, "{} on {topics:?}, {claim:?}", who.name);
    }
    let of_another = vec![event("tt.usage.x", "two", "1")];
    let told = told(admission().admit(&own, Some(&locked), of_another));
    assert_eq!(told, "no grant to publish to tt.usage.x", "it tells only of itself");
    for (who, claim, want) in [
        (&own, &new, "yes"),
        (&own, &locked, "yes"),
        (&others, &new, needs_key),
        (&wide, &new, "yes"),
        (&wide, &locked, needs_key),
        (&usage, &new, "no grant to publish to tt.instances"),
        (&named, &new, "no grant to publish to tt.instances"),
        (&principal("exact", &["tt.instances"]), &new, "yes"),
    ] {
        let told = claim.speaker(who).map_or_else(|refused| refused.to_string(), |_| "yes".into());
        assert_eq!(told, want, "{} for {claim:?}", who.name);
    }
}

#[test]
fn a_batch_is_within_its_limits_whoever_has_read_it() {
    let who = principal("ci", &["**"]);
    let admit = |events: Vec<Event>| admission().admit(&who, None, events);
    let many = || (0..4).map(|_| event("a", "one", "1")).collect::<Vec<_>>();
    let refused = admit(many()).unwrap_err();
    assert_eq!(refused.to_string(), "a batch has at most 3 events: send it in parts");
    assert_eq!(refused.limit(), Some(Limit::Batch));
    assert_eq!(admit(many().split_off(1)).unwrap().len(), 3);
    let of = |bytes: usize| vec![event("a", "one", "1"), event("a", "one", &"1".repeat(bytes))];
    let beside = "a1one2026-11-20T12:00:00Z".len();
    assert_eq!(admit(of(100 - beside)).unwrap().len(), 2);
    let refused = admit(of(101 - beside)).unwrap_err();
    assert_eq!(refused.to_string(), "an event has at most 100 bytes, this one has 101");
    assert!(matches!(refused, Refused::TooLarge { index: 1, .. }));
    assert_eq!(refused.limit(), Some(Limit::Event));
}

#[test]
fn an_event_is_theirs_whose_credentials_came_with_it() {
    let mallory = principal("mallory", &["**"]);
    let admitted = admission().admit(&mallory, None, vec![event("a", "ci", "1")]).unwrap();
    assert_eq!(admitted[0].publisher, PublisherName::key("mallory"));
}

#[test]
fn a_refusal_names_some_topics_of_each_kind_and_not_all_there_are() {
    let many = Admission::new(OwnTopics::default(), BatchLimits { event: 100, batch: 1000 });
    let topics = (0..100).flat_map(|n| [format!("hub.t{n}"), format!("t{n}")]);
    let events = topics.map(|on| event(&on, "one", "1")).collect();
    let Err(Refused::Topics(named)) = many.admit(&principal("nobody", &[]), None, events) else {
        panic!("none of them is refused");
    };
    let own = named.iter().filter(|topic| matches!(topic, RefusedTopic::HubsOwn(_))).count();
    assert_eq!((own, named.len() - own), (MOST_NAMED, MOST_NAMED));
}

#[test]
fn what_the_hub_makes_is_its_own_and_known_again_only_by_an_id_it_was_given() {
    let made = || OwnEvent::new(&topic("hub.x"), "kind", 1000, RawValue::NULL.to_owned());
    let (one, other) = (made(), made());
    assert_eq!((&one.publisher, &*one.source), (&PublisherName::hub(), "hub"));
    assert_eq!((one.kind.as_deref(), &*one.time), (Some("kind"), "1970-01-01T00:00:01.000Z"));
    assert!(one.id_is_ours && one.id != other.id && one.key.is_none());
    let told = made().with_key("k").with_source("s").with_id("i".into());
    assert_eq!((told.key.as_deref(), &*told.source, &*told.id), (Some("k"), "s", "i"));
    assert!(!told.id_is_ours, "a retry carries it");
    let mut admitted: Admitted = [one, other].into_iter().collect();
    admitted.extend([told]);
    let sources: Vec<_> = admitted.iter().map(|event| &*event.source).collect();
    assert_eq!(sources, ["hub", "hub", "s"]);
}
