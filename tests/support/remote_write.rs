//! Remote write requests as Prometheus sends them.

use prost::encoding::{bytes, double, int64, string};

/// What such a request says of its body.
pub(crate) const HEADERS: [(&str, &str); 2] =
    [("content-type", "application/x-protobuf"), ("content-encoding", "snappy")];

/// `prometheus.WriteRequest` with a sample for each series: its name, its time in milliseconds and its value.
pub(crate) fn body(samples: &[(&str, i64, f64)]) -> Vec<u8> {
    let mut request = Vec::new();
    for (name, time, value) in samples {
        let (mut label, mut sample, mut series) = (Vec::new(), Vec::new(), Vec::new());
        string::encode(1, &"__name__".to_owned(), &mut label);
        string::encode(2, &(*name).to_owned(), &mut label);
        double::encode(1, value, &mut sample);
        int64::encode(2, time, &mut sample);
        bytes::encode(1, &label, &mut series);
        bytes::encode(2, &sample, &mut series);
        bytes::encode(1, &series, &mut request);
    }
    snap::raw::Encoder::new().compress_vec(&request).unwrap()
}
