//! Kill -9 under load, again and again: what was answered is there, once, and everyone sees it once.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Instant};

use tokio::time::timeout;

use crate::support::{
    DEADLINE,
    checker::{Answer, Evidence, Seen, offsets},
    dice::Dice,
    eventually, filter,
    load::{Kind, Load, more_is_stored, publish, step, subscribe},
    process::Home,
};

const PATTERNS: [&[&str]; 5] = [
    &["load.**"],
    &["load.**"],
    &["load.a.*"],
    &["load.*.x", "load.b.y"],
    &["load.c"], // quiet: it resumes again and again from an old position
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_answered_is_lost_or_doubled_over_many_crashes() {
    crash_rounds("[journal]\nsync = \"normal\"\n", 40, Dice::first_seed(77)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_answered_is_lost_or_doubled_with_full_sync() {
    crash_rounds("[journal]\nsync = \"full\"\n", 2, Dice::first_seed(78)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_when_the_hub_hardly_keeps_anything_in_memory() {
    let settings = "[journal]\nsync = \"normal\"\nrecent_bytes = \"1 KiB\"\n\
        [hub]\ntail_bytes = \"1 KiB\"\nchunk_bytes = \"1 KiB\"\n";
    crash_rounds(settings, 8, Dice::first_seed(79)).await;
}

async fn crash_rounds(settings: &str, rounds: u32, seed: u64) {
    println!("seed {seed}"); // shown when the test fails
    let started = Instant::now();
    let mut dice = Dice::new(seed);
    let home = Home::new(settings);
    let mut hub = home.start().await;
    let load = Load::new(home.token("load", "load.**"), Kind::Journal);
    load.move_to(vec![Some(hub.address())]);
    let readers: Vec<_> = PATTERNS
        .iter()
        .enumerate()
        .map(|(n, patterns)| {
            let name = format!("reader {n}");
            tokio::spawn(subscribe(load.clone(), name, patterns, dice.split()))
        })
        .collect();
    // A subscription that began later would not be owed what came before.
    let all = async || (load.began.load(Ordering::SeqCst) == PATTERNS.len()).then_some(());
    eventually("the subscriptions", all).await;
    let publishers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(publish(load.clone(), format!("p{n}"), dice.split())))
        .collect();
    for round in 0..rounds {
        more_is_stored(&load, dice.within(0..60), &format!("answers in round {round}")).await;
        // Nobody asks a hub that is known to be gone: what is unknown then was under way.
        load.move_to(vec![None]);
        hub.kill();
        hub = home.start().await;
        load.move_to(vec![Some(hub.address())]);
    }
    load.stop_publishing();
    let mut evidence = Evidence::default();
    for publisher in publishers {
        evidence
            .sent
            .extend(timeout(DEADLINE, publisher).await.expect("a publisher hangs").unwrap());
    }
    evidence.sent.extend(load.publish_the_last(&mut dice).await);
    for reader in readers {
        evidence.seen.push(timeout(DEADLINE, reader).await.expect("a reader hangs").unwrap());
    }
    let log = export(&home);
    evidence.kept = offsets(&log.steps);
    evidence.seen.push(log);
    hub.kill();
    // As it was written, not as the hub had it in memory.
    evidence.seen.push(export(&home));
    let faults = evidence.judge();
    assert_eq!(faults[..faults.len().min(10)], [], "seed {seed}, {} faults", faults.len());
    judge_the_test(&evidence, rounds);
    println!("{} events, {rounds} crashes, {:?}", evidence.sent.len(), started.elapsed());
}

/// The whole log as if it were a subscription; a fault in it carries this name.
fn export(home: &Home) -> Seen {
    let steps: Vec<_> = home.export("load.**").iter().map(step).collect();
    Seen { name: "export".into(), filter: filter(&["load.**"]), after: 0, through: u64::MAX, steps }
}

/// A run in which the crashes met nothing would prove nothing.
fn judge_the_test(evidence: &Evidence, rounds: u32) {
    let unknown: BTreeSet<&str> = evidence
        .sent
        .iter()
        .filter(|sent| sent.answer == Answer::Unknown)
        .map(|sent| &*sent.id)
        .collect();
    assert!(unknown.len() >= rounds as usize / 4, "only {} unknown outcomes", unknown.len());
}
