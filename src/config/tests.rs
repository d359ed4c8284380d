//! Layers, their errors, and the files that are shipped.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::bytesize::ByteSize;

fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn with_file(text: &str) -> Result<Config, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(Some(&path), [], &[])
}

fn message(result: Result<Config, ConfigError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn the_defaults_stand_by_themselves() {
    let config = Config::load(None, [], &[]).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.limits.body, ByteSize(8 << 20));
}

#[test]
fn each_layer_goes_before_the_one_below() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    let text = "data = \"file\"\n[limits]\nbatch = 7\nframe = \"1 KiB\"\n";
    std::fs::write(&path, text).unwrap();
    let env = variables(&[
        ("PULSEHUB_LIMITS_BATCH", "8"),
        ("PULSEHUB_DATA", "env"),
        ("PULSEHUB_HTTP_ALLOWED_ORIGINS", "https://a.example, https://b.example"),
        ("PULSEHUB_CONFIG", "elsewhere.toml"),
        ("PATH", "/bin"),
    ]);
    let flags = [("data", "flag".to_owned())];
    let config = Config::load(Some(&path), env, &flags).unwrap();
    assert_eq!(config.data, Path::new("flag"));
    assert_eq!((config.limits.batch, config.limits.frame), (8, ByteSize(1 << 10)));
    assert_eq!(config.limits.body, ByteSize(8 << 20));
    assert_eq!(config.http.allowed_origins.len(), 2);
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest() {
    let text = message(with_file("[[journal.retention]]\ntopic = []\n"));
    assert!(text.contains("did you mean journal.retention.topics?"), "{text}");
    let text = message(with_file("[auth.roles.mine]\nsubscrib = []\n"));
    assert!(text.contains("`auth.roles.mine.subscrib`"), "{text}");
    let text = message(Config::load(None, variables(&[("PULSEHUB_LIMIT_BODY", "1")]), &[]));
    assert!(text.ends_with("did you mean PULSEHUB_LIMITS_BODY?"), "{text}");
    assert!(with_file("[auth.roles.mine]\nsubscribe = [\"a.**\"]\n").is_ok());
}

#[test]
fn a_hub_beside_a_service_of_its_name_did_not_start_in_kubernetes() {
    let of_service = [
        ("PULSEHUB_SERVICE_HOST", "10.0.0.1"),
        ("PULSEHUB_SERVICE_PORT", "8080"),
        ("PULSEHUB_SERVICE_PORT_HTTP", "8080"),
        ("PULSEHUB_PORT", "tcp://10.0.0.1:8080"),
        ("PULSEHUB_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("PULSEHUB_PORT_8080_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(Config::load(None, variables(&of_service), &[]).is_ok());
    let slip = [of_service.as_slice(), &[("PULSEHUB_LISTN", "127.0.0.1:1")]].concat();
    let text = message(Config::load(None, variables(&slip), &[]));
    assert!(text.ends_with("did you mean PULSEHUB_LISTEN?"), "{text}");
}

#[test]
fn a_wrong_value_is_told_with_its_key_and_place() {
    let text = message(with_file("[limits]\nbatch = 50001\n"));
    assert!(text.contains("line 2") && text.ends_with("must be at most 50000"), "{text}");
    let text =
        message(with_file("[limits]\nbody = \"65 MiB\"\n[journal]\nqueue_bytes = \"65 MiB\"\n"));
    assert!(text.contains("line 2") && text.ends_with("must be at most 32 MiB"), "{text}");
    assert!(with_file("[limits]\nbody = \"32 MiB\"\n").is_ok());
    let text = message(with_file("[[journal.retention]]\ntopics = [\"a..b\"]\n"));
    assert!(text.contains("journal.retention[0].topics[0]"), "{text}");
    assert!(message(with_file("[http]\nallowed_origins = [\"*\"]\n")).contains("no origin"));
    let proxies = "proxy_protocol = true\ntrusted_proxies = [\"10.0.0.0/8\"]\n";
    assert!(with_file(&format!("[http]\n{proxies}")).is_ok());
    let text = message(with_file("[http]\nproxy_protocol = true\n"));
    assert!(text.contains("line 2") && text.ends_with("http.trusted_proxies"), "{text}");
    assert!(message(with_file("[hub]\nmax_hz = 61\n")).contains("from 0.01 to 60"));
    assert!(message(with_file("[log]\nlevel = \"loud\"\n")).contains("no level"));
}

#[test]
fn an_address_others_can_reach_needs_a_secret() {
    let listen = [("listen", "0.0.0.0:8080".to_owned())];
    let text = message(Config::load(None, [], &listen));
    assert!(text.contains("openssl rand -hex 32") && text.contains("PULSEHUB_SECRET"), "{text}");
    let secret = variables(&[("PULSEHUB_SECRET", "0123456789abcdef0123456789abcdef")]);
    assert!(Config::load(None, secret, &listen).is_ok());
    assert!(Config::load(None, [], &[("listen", "[::1]:0".to_owned())]).is_ok());
}

#[test]
fn an_address_that_is_none_is_refused_without_being_shown() {
    let env = variables(&[("PULSEHUB_REDIS", "radish://:hunter2@db")]);
    let text = message(Config::load(None, env, &[]));
    assert!(text.contains("write redis://") && !text.contains("hunter2"), "{text}");
}

#[test]
fn no_secret_is_ever_printed() {
    let secret = "hunter2-hunter2-hunter2-hunter2-hunter2";
    let config = Config::load(None, variables(&[("PULSEHUB_SECRET", secret)]), &[]).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    for text in [
        "secret = \"hunter2\n",
        "secret = hunter2\n",
        "secret = [\"hunter2\"]\n",
        "secret = 123456789\n",
        "[[auth.keys]]\nalgorithm = \"HS256\"\nsecret = 123456789\n",
    ] {
        let text = message(with_file(text));
        assert!(!text.contains("hunter2") && !text.contains("123456789"), "{text}");
    }
}

#[test]
fn derived_values_and_projections_are_checked_together() {
    let derive = "[[derive]]\nname = \"shop.n\"\ntopic = \"shop.orders\"\nop = \"count\"\n";
    let projection = |text: &str| format!("{derive}[[projection]]\ntopic = \"shop.sum\"\n{text}\n");
    let shape = "shape.n = { value = \"shop.n\" }";
    assert!(with_file(&projection(&format!("path = \"/api/shop/sum\"\n{shape}"))).is_ok());
    for (text, key, advice) in [
        (format!("{derive}{derive}"), "derive[1].name", "already a derived value"),
        (derive.replace("shop.n", "shop n"), "derive[0].name", "1 to 255 bytes"),
        (
            derive.replace("count", "counts"),
            "derive[0].op",
            "must be count, sum, avg, ratio, last, min, max, rate or present, not \"counts\"",
        ),
        (derive.replace("count", "avg"), "derive[0].field", "needs the field"),
        (
            format!("{derive}where = {{ a = {{ is = 1 }} }}"),
            "derive[0].where",
            "did you mean derive.where.a.in?",
        ),
        (
            format!("{derive}window = \"2h\"\n[series]\nkeep = \"1h\""),
            "derive[0].window",
            "make series.keep longer",
        ),
        (format!("{derive}windw = 1"), "derive[0].windw", "derive.window?"),
        (
            projection("shape.n = { value = \"shop.m\" }"),
            "projection[0].shape.n.value",
            "add a [[derive]]",
        ),
        (projection(&format!("path = \"/metrics\"\n{shape}")), "projection[0].path", "hub's own"),
        (
            projection(&format!("path = \"/api/x/events\"\n{shape}")),
            "projection[0].path",
            "called x",
        ),
        (
            projection(&format!("socket = \"/api/stats/\"\n{shape}")),
            "projection[0].socket",
            "flext.dashboard",
        ),
        (
            projection(&format!("path = \"/a\"\nsocket = \"/a\"\n{shape}")),
            "projection[0].socket",
            "shop.sum",
        ),
        (projection(&format!("path = \"/{{x}}\"\n{shape}")), "projection[0].path", "looks like"),
        (projection("shape = { list = \"shop.*\" }"), "projection[0].shape", "feed on"),
        (
            projection("shape = 1").replace("shop.sum", "hub.sum"),
            "projection[0].topic",
            "belong to the hub",
        ),
        (
            projection("shape = 1").replace("shop.sum", "flext.dashboard"),
            "projection[0].topic",
            "projections.shipped",
        ),
        (
            projection("shape = 1").replace("shop.sum", "voicehive.events.x"),
            "projection[0].topic",
            "is read by",
        ),
        (projection("shape = { freshness = \"error\" }"), "projection[0].shape", "own `freshness`"),
        ("[projections]\nshipped = [\"x\"]".to_owned(), "projections.shipped", "voicehive, flext"),
        ("[projections]\nmax_hz = 0".to_owned(), "projections.max_hz", "0.01 to 60"),
    ] {
        let message = message(with_file(&text));
        assert!(
            message.contains(&format!("`{key}")) && message.contains(advice),
            "{text}: {message}"
        );
        assert!(message.contains("own.toml line "), "{message}");
    }
    let second = projection(shape) + "[[projection]]\ntopic = \"a.b\"\nshape = { x = nan }";
    assert!(
        message(with_file(&second)).contains("own.toml line 1"),
        "{}",
        message(with_file(&second))
    );
}

#[test]
fn every_variable_sets_one_key() {
    let layers = Layers::new(DEFAULTS, &reference::with_examples(DEFAULTS)).unwrap();
    let variables = layers.variables();
    let keys: std::collections::BTreeSet<_> = variables.values().collect();
    assert_eq!(keys.len(), variables.len());
    assert_eq!(variables["PULSEHUB_AUTH_NOT_BEFORE_LEEWAY"], "auth.not_before_leeway");
}

#[test]
fn every_file_in_config_is_valid() {
    let examples = reference::with_examples(DEFAULTS);
    let config = with_file(&examples).unwrap();
    assert_eq!((config.journal.retention.len(), config.auth.keys.len()), (1, 3));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in files.filter(|path| path.extension().is_some_and(|end| end == "toml")) {
        let secret = variables(&[("PULSEHUB_SECRET", "0123456789abcdef0123456789abcdef")]);
        // Two of them are in force by themselves and would meet themselves.
        let flags = [("projections.shipped", String::new())];
        if let Err(error) = Config::load(Some(&path), secret, &flags) {
            panic!("{error}");
        }
    }
}

#[test]
fn the_reference_is_the_defaults_file_in_prose() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let rendered = render_reference(DEFAULTS);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == rendered,
        "docs/configuration.md is old: run the tests with UPDATE_DOCS=1"
    );
}

/// Every table of the examples, by its path, with every key that any of them has.
fn tables(value: &toml::Value, path: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    match value {
        toml::Value::Table(table) => {
            let own = found.entry(path.to_owned()).or_default();
            own.extend(table.keys().cloned());
            for (name, value) in table {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                tables(value, &path, found);
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| tables(item, path, found)),
        _ => {}
    }
}

/// The same tree with `key` in the first table at `path`.
fn with_key(value: &mut toml::Value, path: &str, key: &str) {
    match value {
        toml::Value::Array(items) => with_key(&mut items[0], path, key),
        toml::Value::Table(table) => match path.split_once('.') {
            _ if path.is_empty() => drop(table.insert(key.to_owned(), 1.into())),
            Some((name, rest)) => with_key(table.get_mut(name).unwrap(), rest, key),
            None => with_key(table.get_mut(path).unwrap(), "", key),
        },
        _ => panic!("{path} is no table"),
    }
}

#[test]
fn every_key_that_the_types_take_has_a_default_or_an_example_and_is_accepted() {
    let examples: toml::Value =
        toml::Value::Table(reference::with_examples(DEFAULTS).parse().unwrap());
    let mut found = BTreeMap::new();
    tables(&examples, "", &mut found);
    // Tables whose keys are the user's own.
    let is_free = |path: &str| {
        matches!(path, "auth.roles" | "auth.open_keys")
            || path.starts_with("derive.where")
            || path.starts_with("projection.shape")
    };
    let mut keys = 0;
    for (path, shown) in found.iter().filter(|(path, _)| !is_free(path)) {
        let mut tree = examples.clone();
        with_key(&mut tree, path, "no_such_key");
        let message = Config::deserialize(tree).unwrap_err().to_string();
        let message = message.trim_end().lines().next().unwrap();
        let (name, taken) =
            wording::unknown_field(message).unwrap_or_else(|| panic!("{path}: {message}"));
        assert_eq!(name, "no_such_key");
        let taken: BTreeSet<_> = taken.into_iter().map(str::to_owned).collect();
        assert_eq!(&taken, shown, "[{path}]: give each key a default or an example");
        keys += taken.len();
    }
    assert!(keys > 80, "{keys}");
    assert!(with_file(&reference::with_examples(DEFAULTS)).is_ok());
}

#[test]
fn every_variable_takes_what_its_default_or_example_says() {
    let examples = reference::with_examples(DEFAULTS);
    let layers = Layers::new(DEFAULTS, &examples).unwrap();
    let tree: toml::Table = examples.parse().unwrap();
    let all: Vec<_> = layers.variables().into_iter().collect();
    for (name, key) in &all {
        let mut value = &toml::Value::Table(tree.clone());
        for step in key.split('.') {
            value = &value[step];
        }
        let text = match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Array(items) if items.iter().all(toml::Value::is_str) => {
                items.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(",")
            }
            value => value.to_string(),
        };
        // A projection is of values that are derived.
        let derived = ("PULSEHUB_DERIVE", tree["derive"].to_string());
        let derive = (name == "PULSEHUB_PROJECTION").then_some((derived.0, &*derived.1));
        let pairs: Vec<_> = [(name.as_str(), text.as_str())].into_iter().chain(derive).collect();
        if let Err(error) = Config::load(None, variables(&pairs), &[]) {
            panic!("{name}={text}: {error}");
        }
    }
    for name in ["PULSEHUB_AUTH_KEYS", "PULSEHUB_AUTH_ANONYMOUS", "PULSEHUB_SOURCE"] {
        assert!(all.iter().any(|(variable, _)| variable == name), "{name}");
    }
}

#[test]
fn keys_of_any_algorithm_are_configured_from_a_file_and_from_a_variable() {
    for algorithm in
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
    {
        for source in ["pem_file = \"key.pem\"", "pem = \"-----BEGIN PUBLIC KEY-----\""] {
            let file = format!("[[auth.keys]]\nalgorithm = \"{algorithm}\"\n{source}\n");
            let text = format!("[{{ algorithm = \"{algorithm}\", {source} }}]");
            let variable = variables(&[("PULSEHUB_AUTH_KEYS", &text)]);
            for config in [with_file(&file), Config::load(None, variable, &[])] {
                let config = config.unwrap_or_else(|error| panic!("{text}: {error}"));
                assert_eq!(format!("{:?}", config.auth.keys[0].algorithm), algorithm);
            }
        }
    }
    for text in ["[\"hunter2\"]", "hunter2", "[{ secret = hunter2 }]", "[{ secret = 1, hunter2 }]"]
    {
        let text = message(Config::load(None, variables(&[("PULSEHUB_AUTH_KEYS", text)]), &[]));
        assert!(text.contains("PULSEHUB_AUTH_KEYS") && !text.contains("hunter2"), "{text}");
    }
}
