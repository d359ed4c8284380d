//! The text format 0.0.4 of Prometheus, made from OpenMetrics, for clients that do not accept OpenMetrics.

use std::collections::HashSet;

/// The same metrics. A counter's `HELP` and `TYPE` have the name of its samples there, and neither units nor an end are
/// told.
pub(super) fn from_openmetrics(text: &str) -> String {
    let counters: HashSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut converted = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let about = ["# HELP ", "# TYPE "].into_iter().find_map(|word| {
            let (name, rest) = line.strip_prefix(word)?.split_once(' ')?;
            Some((word, name, rest))
        });
        match about {
            Some((word, name, rest)) if counters.contains(name) => {
                converted.extend([word, name, "_total ", rest]);
            }
            _ => converted.push_str(line),
        }
        converted.push('\n');
    }
    converted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_has_one_name_and_the_end_is_not_told() {
        let openmetrics = "# HELP a_frames Frames.\n# TYPE a_frames counter\na_frames_total 3\n\
                           # HELP a_commit_seconds Time.\n# TYPE a_commit_seconds histogram\n\
                           # UNIT a_commit_seconds seconds\na_commit_seconds_sum 0.5\n# EOF\n";
        let text = "# HELP a_frames_total Frames.\n# TYPE a_frames_total counter\na_frames_total 3\n\
                    # HELP a_commit_seconds Time.\n# TYPE a_commit_seconds histogram\na_commit_seconds_sum 0.5\n";
        assert_eq!(from_openmetrics(openmetrics), text);
    }
}
