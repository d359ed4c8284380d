//! What is counted of samples when the log is read again.

use super::*;

impl Bench {
    /// Publishes one event with a sample that is good, one that is not, and one whose time is not.
    async fn publish_mixed(&self) {
        let samples = json!([
            {"name": "good", "value": 1},
            {"name": "bad", "value": "much"},
            {"name": "good", "type": "counter", "value": 2},
            {"name": "good", "value": 3, "time": 5},
        ]);
        let event = event(NOW, &json!({"samples": samples}));
        self.broker.publish(event.into()).await.unwrap();
    }
}

/// Samples that were put in, whose time was not theirs, and that were left out for each reason.
fn counts(series: &Series) -> (u64, u64, Vec<(&'static str, u64)>) {
    let telemetry = &series.0.telemetry;
    let dropped = series.dropped().into_iter().collect();
    (telemetry.series_samples.get(), telemetry.series_retimed.get(), dropped)
}

#[tokio::test]
async fn what_is_read_again_from_the_last_save_is_not_counted_again() {
    let bench = Bench::new();
    let series = bench.series();
    let begin = async || {
        let mut node = series.begin(Some(fence())).await.unwrap();
        node.catch_up();
        node
    };
    let mut node = begin().await;
    bench.publish_mixed().await;
    follow(&mut node).await;
    assert_eq!(counts(&series), (3, 1, vec![("value", 1)]));

    // The lease is lost and comes back, with nothing saved; then an error before it is caught up.
    for _ in 0..2 {
        drop(node);
        node = begin().await;
        follow(&mut node).await;
        assert_eq!(counts(&series), (3, 1, vec![("value", 1)]));
    }
    node = begin().await;
    let delivery = node.reader.next().await.unwrap();
    node.take_in(&delivery).await.unwrap();
    node = begin().await;
    bench.publish_mixed().await;
    follow(&mut node).await;
    assert_eq!(counts(&series), (6, 2, vec![("value", 2)]));
    let (name, labels) = (Name::new("good").unwrap(), Labels::default());
    let count = node.series.window(&name, &labels, Aggregate::Count, None, NOW, &|_| true);
    assert_eq!(count.await.unwrap(), Some(3.0), "what is equal adds nothing");
}
