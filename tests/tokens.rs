//! JSON Web Tokens at the door: each rule with real keys, each refusal with its reason.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use pulsehub::{
    auth::{self, AuthError, Authenticator, MintClaims, MintError, Principal},
    store::Store,
    time::{Clock, Millis, Span},
    topic::{Topic, TopicPattern},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::auth_config;

const NOW: Millis = 1_800_000_000_000;
const SECONDS: u64 = NOW / 1000;
const OWN: &str = "the hub's own secret, long enough for HS256";
const SHARED: &str = "a secret shared with another issuer: 64 bytes or a little more than 64";

const RSA_PRIVATE: &str = include_str!("keys/rsa.private.pem");
const RSA_PUBLIC: &str = include_str!("keys/rsa.public.pem");
const RSA_SHORT: &str = include_str!("keys/rsa-1024.public.pem");
const P256_PRIVATE: &str = include_str!("keys/p256.private.pem");
const P256_PUBLIC: &str = include_str!("keys/p256.public.pem");
const P384_PRIVATE: &str = include_str!("keys/p384.private.pem");
const P384_PUBLIC: &str = include_str!("keys/p384.public.pem");
const ED_PRIVATE: &str = include_str!("keys/ed25519.private.pem");
const ED_PUBLIC: &str = include_str!("keys/ed25519.public.pem");

/// An authenticator with its clock, and a folder that lives as long.
struct Door {
    authenticator: Authenticator,
    clock: Clock,
    _folder: TempDir,
}

impl Door {
    fn new(config: &str) -> Self {
        Self::try_new(config).unwrap()
    }

    fn try_new(config: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW);
        let store = Store::open(folder.path(), clock.clone()).unwrap();
        let authenticator =
            Authenticator::new(&auth_config(config), &OWN.into(), &store, clock.clone())
                .map_err(|error| error.to_string())?;
        Ok(Self { authenticator, clock, _folder: folder })
    }

    async fn show(&self, token: &str) -> Result<Principal, AuthError> {
        self.authenticator.authenticate(token).await
    }

    /// The reason for which `token` is refused as invalid.
    async fn reason(&self, token: &str) -> &'static str {
        match self.show(token).await {
            Err(AuthError::Invalid(reason)) => reason,
            other => panic!("not refused as invalid: {other:?}"),
        }
    }
}

fn pem_key(kid: &str, algorithm: &str, pem: &str) -> String {
    format!("[[keys]]\nkid = \"{kid}\"\nalgorithm = \"{algorithm}\"\npem = '''\n{pem}'''\n")
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn sign(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

fn hmac(header: &Value, claims: &Value, secret: &str) -> String {
    sign(header, claims, &EncodingKey::from_secret(secret.as_bytes()), Algorithm::HS256)
}

/// A token of the hub's own key with these claims.
fn own(claims: &Value) -> String {
    hmac(&json!({"alg": "HS256"}), claims, OWN)
}

/// Good claims, changed by `change`; null removes a claim.
fn claims(change: Value) -> Value {
    let mut claims = json!({"sub": "ada", "exp": SECONDS + 60, "subscribe": ["voicehive.*"]});
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        }
    }
    claims
}

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::parse(text).unwrap()
}

#[tokio::test]
async fn every_algorithm_verifies_with_its_own_key() {
    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
    let secret = EncodingKey::from_secret(SHARED.as_bytes());
    let p256 = EncodingKey::from_ec_pem(P256_PRIVATE.as_bytes()).unwrap();
    let p384 = EncodingKey::from_ec_pem(P384_PRIVATE.as_bytes()).unwrap();
    let ed = EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap();
    for (name, algorithm, key, public) in [
        ("HS256", Algorithm::HS256, &secret, None),
        ("HS384", Algorithm::HS384, &secret, None),
        ("HS512", Algorithm::HS512, &secret, None),
        ("RS256", Algorithm::RS256, &rsa, Some(RSA_PUBLIC)),
        ("RS384", Algorithm::RS384, &rsa, Some(RSA_PUBLIC)),
        ("RS512", Algorithm::RS512, &rsa, Some(RSA_PUBLIC)),
        ("PS256", Algorithm::PS256, &rsa, Some(RSA_PUBLIC)),
        ("PS384", Algorithm::PS384, &rsa, Some(RSA_PUBLIC)),
        ("PS512", Algorithm::PS512, &rsa, Some(RSA_PUBLIC)),
        ("ES256", Algorithm::ES256, &p256, Some(P256_PUBLIC)),
        ("ES384", Algorithm::ES384, &p384, Some(P384_PUBLIC)),
        ("EdDSA", Algorithm::EdDSA, &ed, Some(ED_PUBLIC)),
    ] {
        let door = Door::new(&match public {
            Some(pem) => pem_key("k", name, pem),
            None => format!("[[keys]]\nkid = \"k\"\nalgorithm = \"{name}\"\nsecret = \"{SHARED}\""),
        });
        let header = json!({"alg": name, "kid": "k"});
        let token = sign(&header, &claims(json!({})), key, algorithm);
        let principal = door.show(&token).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(&*principal.name, "ada", "{name}");

        let (message, signature) = token.rsplit_once('.').unwrap();
        let other = sign(&header, &claims(json!({"sub": "eve"})), key, algorithm);
        let (forged, _) = other.rsplit_once('.').unwrap();
        let wrong = "the token's signature is wrong";
        assert_eq!(door.reason(&format!("{forged}.{signature}")).await, wrong, "{name}");
        assert_eq!(door.reason(&format!("{message}.")).await, wrong, "{name}");
        assert_eq!(door.reason(&format!("{message}.!")).await, wrong, "{name}");
    }
}

#[tokio::test]
async fn the_algorithm_is_the_keys_and_never_the_tokens() {
    let door = Door::new(&pem_key("rsa", "RS256", RSA_PUBLIC));
    let good = claims(json!({}));
    let not_its_algorithm = "the token's algorithm is not the one its key is for";

    let public_as_secret = hmac(&json!({"alg": "HS256", "kid": "rsa"}), &good, RSA_PUBLIC);
    assert_eq!(door.reason(&public_as_secret).await, not_its_algorithm);
    let nameless = hmac(&json!({"alg": "HS256"}), &good, RSA_PUBLIC);
    assert_eq!(door.reason(&nameless).await, "the token's signature is wrong");

    let rsa = EncodingKey::from_rsa_pem(RSA_PRIVATE.as_bytes()).unwrap();
    let other_padding = sign(&json!({"alg": "PS256", "kid": "rsa"}), &good, &rsa, Algorithm::PS256);
    assert_eq!(door.reason(&other_padding).await, not_its_algorithm);

    for none in ["none", "None", "NONE"] {
        let header = json!({"alg": none});
        for signature in ["", "AAAA"] {
            let token = format!("{}.{}.{signature}", encode(&header), encode(&good));
            assert_eq!(door.reason(&token).await, "the token is not signed");
        }
    }
}

#[tokio::test]
async fn a_kid_names_the_only_key_that_is_tried() {
    let door = Door::new(&format!(
        "[[keys]]\nkid = \"a\"\nalgorithm = \"HS256\"\nsecret = \"{SHARED}\"\n\
         [[keys]]\nalgorithm = \"HS384\"\nsecret = \"{SHARED}\""
    ));
    let good = claims(json!({}));
    let unknown = "no key is configured for the token's `kid`";
    assert!(door.show(&hmac(&json!({"alg": "HS256", "kid": "a"}), &good, SHARED)).await.is_ok());
    // The right secret under a foreign name, the hub's own under any name, a named one without.
    for (header, secret, reason) in [
        (json!({"alg": "HS256", "kid": "b"}), SHARED, unknown),
        (json!({"alg": "HS256", "kid": "b"}), OWN, unknown),
        (json!({"alg": "HS256", "kid": ""}), OWN, unknown),
        (json!({"alg": "HS256", "kid": "a"}), OWN, "the token's signature is wrong"),
        (json!({"alg": "HS256"}), SHARED, "the token's signature is wrong"),
        (json!({"alg": "HS256", "kid": 7}), OWN, "the token's `kid` is not a text"),
        (json!({"alg": "HS256", "kid": null}), OWN, "the token's `kid` is not a text"),
    ] {
        assert_eq!(door.reason(&hmac(&header, &good, secret)).await, reason, "{header}");
    }
    let shared = EncodingKey::from_secret(SHARED.as_bytes());
    let nameless = sign(&json!({"alg": "HS384"}), &good, &shared, Algorithm::HS384);
    assert!(door.show(&nameless).await.is_ok());
    let no_such = sign(&json!({"alg": "HS512"}), &good, &shared, Algorithm::HS512);
    assert_eq!(
        door.reason(&no_such).await,
        "no key without `kid` is configured for the token's algorithm"
    );
}

#[tokio::test]
async fn what_crit_asks_for_is_never_known() {
    let door = Door::new("");
    for crit in [json!(["b64"]), json!(["exp"]), json!([]), json!(null), json!("x")] {
        let token = hmac(&json!({"alg": "HS256", "crit": crit}), &claims(json!({})), OWN);
        let reason = "the token's `crit` asks for what the hub does not know";
        assert_eq!(door.reason(&token).await, reason, "{crit}");
    }
}

#[tokio::test]
async fn what_is_no_token_is_refused_with_what_is_wrong() {
    let door = Door::new("");
    let good = own(&claims(json!({})));
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, body) = message.split_once('.').unwrap();
    let parts =
        "a token has three parts, joined by dots, and this is no API key: was it copied whole?";
    let bad_header = "the token's header is not a JSON object in base64url";
    for (token, reason) in [
        (String::new(), parts),
        ("abc".into(), parts),
        (message.to_owned(), parts),
        (format!("{good}.x"), parts),
        (format!("{header}=.{body}.{signature}"), bad_header),
        (format!("+{header}.{body}.{signature}"), bad_header),
        (format!("{}.{body}.{signature}", encode(&json!([1]))), bad_header),
        (
            format!("{}.{body}.{signature}", encode(&json!({}))),
            "the token's header names no algorithm",
        ),
        (format!("ä{good}"), bad_header),
        (format!("{good}{}", "A".repeat(8 << 10)), "the token is longer than 8 KiB"),
    ] {
        assert_eq!(door.reason(&token).await, reason, "{token:.60}");
    }
    for body in [json!([1]), json!("text"), json!(null), json!(5)] {
        let reason = "the token's claims are not a JSON object in base64url";
        assert_eq!(door.reason(&own(&body)).await, reason, "{body}");
    }
    // Nothing of a token is ever echoed.
    let error = door.show(&own(&claims(json!({"sub": "very\u{7}secret"})))).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn times_are_those_of_the_hubs_clock() {
    let door = Door::new("");
    let token = own(&claims(json!({"exp": SECONDS + 10, "nbf": SECONDS + 5})));
    assert_eq!(door.show(&token).await.unwrap().expires, Some(NOW + 10_000));
    door.clock.set(NOW - 1);
    assert_eq!(door.show(&token).await, Err(AuthError::NotYetValid));
    door.clock.set(NOW + 9_999);
    assert!(door.show(&token).await.is_ok());
    door.clock.set(NOW + 10_000); // no leeway for `exp`
    assert_eq!(door.show(&token).await, Err(AuthError::Expired));

    door.clock.set(NOW);
    let halves = own(&claims(json!({"exp": SECONDS as f64 + 0.5})));
    assert_eq!(door.show(&halves).await.unwrap().expires, Some(NOW + 500));
    assert_eq!(
        door.show(&own(&claims(json!({"exp": 1e300})))).await.unwrap().expires,
        Some(u64::MAX)
    );
    assert_eq!(door.show(&own(&claims(json!({"exp": 0})))).await, Err(AuthError::Expired));

    let strict = Door::new("not_before_leeway = \"0s\"");
    let later = own(&claims(json!({"nbf": SECONDS + 1})));
    assert_eq!(strict.show(&later).await, Err(AuthError::NotYetValid));
}

#[tokio::test]
async fn claims_of_the_wrong_kind_are_refused_by_name() {
    let door = Door::new("");
    let name = "`sub` is a text of 1 to 256 bytes without control characters";
    let roles = "the token's claim for roles is neither a text nor a list of texts";
    let subscribe = "the token's claim for subscribing is neither a text nor a list of texts";
    let no_pattern = "the token's claim for publishing lists something that is no topic pattern";
    for (change, reason) in [
        (json!({"exp": null}), "the token has no `exp`"),
        (json!({"exp": "2000000000"}), "`exp` is not a number of seconds"),
        (json!({"exp": [1]}), "`exp` is not a number of seconds"),
        (json!({"exp": -1}), "`exp` is not a number of seconds"),
        (json!({"nbf": "soon"}), "`nbf` is not a number of seconds"),
        (json!({"sub": null}), "the token has no `sub`"),
        (json!({"sub": 7}), name),
        (json!({"sub": ""}), name),
        (json!({"sub": "a\nb"}), name),
        (json!({"sub": "a".repeat(257)}), name),
        (json!({"role": 1}), roles),
        (json!({"role": ["viewer", 1]}), roles),
        (json!({"subscribe": {"a": 1}}), subscribe),
        (json!({"subscribe": [["a"]]}), subscribe),
        (json!({"publish": "a..b"}), no_pattern),
        (json!({"publish": ["a", "**.a"]}), no_pattern),
        (
            json!({"subscribe": vec!["a"; 257]}),
            "the token's claim for subscribing lists more than 256 patterns",
        ),
    ] {
        assert_eq!(door.reason(&own(&claims(change.clone()))).await, reason, "{change}");
    }
    assert!(door.show(&own(&claims(json!({"sub": "a".repeat(256)})))).await.is_ok());
}

#[tokio::test]
async fn issuer_and_audience_are_required_where_configured() {
    let door = Door::new("issuer = \"https://id.example\"\naudience = [\"hub\", \"hub-test\"]");
    let iss = "the token's `iss` is not the configured issuer";
    let aud = "the token's `aud` names nobody of the configured audience";
    for (change, reason) in [
        (json!({}), "the token has no `iss`"),
        (json!({"aud": "hub"}), "the token has no `iss`"),
        (json!({"iss": "https://id.example"}), "the token has no `aud`"),
        (json!({"iss": "https://id.example/", "aud": "hub"}), iss),
        (json!({"iss": ["https://id.example"], "aud": "hub"}), iss),
        (json!({"iss": "https://id.example", "aud": "other"}), aud),
        (json!({"iss": "https://id.example", "aud": []}), aud),
        (json!({"iss": "https://id.example", "aud": 5}), aud),
        (json!({"iss": "https://id.example", "aud": ["hub", 5]}), aud),
        (json!({"iss": "https://id.example", "aud": "hub "}), aud),
    ] {
        assert_eq!(door.reason(&own(&claims(change.clone()))).await, reason, "{change}");
    }
    for good in [json!("hub"), json!(["x", "hub-test"])] {
        let token = own(&claims(json!({"iss": "https://id.example", "aud": good})));
        assert!(door.show(&token).await.is_ok(), "{good}");
    }
    let open = Door::new("");
    assert!(open.show(&own(&claims(json!({"iss": "x", "aud": "y"})))).await.is_ok());
}

#[tokio::test]
async fn roles_and_claims_are_united() {
    let door = Door::new(
        "roles_claim = \"realm_access.roles\"\n\
         [roles.call-centre]\nsubscribe = [\"calls.**\"]\npublish = [\"calls.notes\"]\n\
         [roles.publisher]\npublish = [\"only.here\"]",
    );
    let show = async |roles: Value| {
        let change = json!({"realm_access": {"roles": roles}, "publish": "mine.*"});
        door.show(&own(&claims(change))).await.unwrap()
    };
    let may_publish = |who: &Principal, topic: &str| who.may_publish(&Topic::parse(topic).unwrap());

    let nobody = show(json!(["offline_access"])).await;
    assert!(nobody.may_subscribe(&pattern("voicehive.*")) && may_publish(&nobody, "mine.x"));
    assert!(!nobody.may_subscribe(&pattern("calls.a")) && !nobody.admin);

    let both = show(json!(["call-centre", "viewer"])).await;
    assert!(both.may_subscribe(&pattern("**")) && !both.may_subscribe(&pattern("hub.**")));
    assert!(may_publish(&both, "calls.notes") && may_publish(&both, "mine.x"));
    assert!(!may_publish(&both, "calls.other") && !both.admin);

    let overridden = show(json!("publisher")).await;
    assert!(may_publish(&overridden, "only.here") && !may_publish(&overridden, "a"));

    let admin = show(json!("admin")).await;
    assert!(admin.admin && admin.may_subscribe(&pattern("hub.**")) && may_publish(&admin, "a"));
    assert!(!may_publish(&admin, "hub.metrics"), "the hub's own topics are nobody else's");

    // The claim's whole name goes before the path, for names such as https://example.com/roles.
    let whole = json!({"realm_access.roles": "viewer", "realm_access": {"roles": "admin"}});
    assert!(!door.show(&own(&claims(whole))).await.unwrap().admin);
    assert!(!door.show(&own(&claims(json!({"realm_access": "admin"})))).await.unwrap().admin);
}

#[tokio::test]
async fn a_minted_token_is_accepted_under_the_same_configuration() {
    let text =
        "issuer = \"me\"\naudience = [\"hub\"]\nroles_claim = \"a.b\"\nsubscribe_claim = \"c.d\"";
    let door = Door::new(text);
    let wanted = MintClaims {
        sub: "ci".into(),
        subscribe: vec![pattern("builds.*")],
        publish: vec![pattern("builds.done")],
        role: Some("viewer".into()),
        ttl: Span::seconds(60),
    };
    let mint = |claims: &MintClaims| auth::mint(&auth_config(text), &OWN.into(), claims, NOW + 1);
    let token: SecretString = mint(&wanted).unwrap();
    assert!(!format!("{token:?}").contains("ey"), "a token does not print");
    let principal = door.show(token.expose_secret()).await.unwrap();
    assert_eq!(&*principal.name, "ci");
    assert!(principal.may_subscribe(&pattern("**")));
    assert!(principal.may_publish(&Topic::parse("builds.done").unwrap()));
    assert_eq!(principal.expires, Some(NOW + 61_000), "rounded up to whole seconds");

    let bad = |change: fn(&mut MintClaims)| {
        let mut claims = wanted.clone();
        change(&mut claims);
        mint(&claims).unwrap_err()
    };
    assert!(matches!(bad(|claims| claims.sub.clear()), MintError::Subject));
    assert!(matches!(bad(|claims| claims.ttl = Span::seconds(0)), MintError::NoTime));
    assert!(matches!(bad(|claims| claims.role = Some("boss".into())), MintError::Role(_)));
    let short = auth::mint(&auth_config(""), &"short".into(), &wanted, NOW).unwrap_err();
    assert!(short.to_string().contains("openssl rand -hex 32"), "{short}");
}

#[test]
fn keys_that_can_verify_nothing_are_refused_at_start() {
    for (config, says) in [
        ("[[keys]]\nalgorithm = \"HS256\"\nsecret = \"short\"".to_owned(), "openssl rand -hex 32"),
        ("[[keys]]\nalgorithm = \"HS256\"".to_owned(), "needs a `secret`"),
        (pem_key("k", "HS256", RSA_PUBLIC), "needs a `secret`"),
        ("[[keys]]\nalgorithm = \"RS256\"".to_owned(), "`pem` or `pem_file`"),
        (format!("[[keys]]\nalgorithm = \"RS256\"\nsecret = \"{SHARED}\""), "`pem` or `pem_file`"),
        (
            format!("{}pem_file = \"x.pem\"", pem_key("k", "RS256", RSA_PUBLIC)),
            "either `pem` or `pem_file`",
        ),
        (
            "[[keys]]\nalgorithm = \"RS256\"\npem_file = \"/no/such.pem\"".to_owned(),
            "cannot read /no/such.pem",
        ),
        (pem_key("k", "RS256", RSA_PRIVATE), "private key"),
        (pem_key("k", "RS256", "text"), "-----BEGIN PUBLIC KEY-----"),
        (pem_key("k", "RS256", RSA_SHORT), "at least 2048 bits"),
        (pem_key("k", "RS256", P256_PUBLIC), "no public key for RS256"),
        (pem_key("k", "ES256", RSA_PUBLIC), "no public key for ES256"),
        (pem_key("k", "ES384", P256_PUBLIC), "curve P-384"),
        (pem_key("k", "ES256", P384_PUBLIC), "curve P-256"),
        (pem_key("k", "EdDSA", P256_PUBLIC), "no public key for EdDSA"),
        (
            pem_key("k", "RS256", RSA_PUBLIC) + &pem_key("k", "ES256", P256_PUBLIC),
            "two keys in [[auth.keys]] have the `kid` \"k\"",
        ),
    ] {
        let error = Door::try_new(&config).map(|_| ()).unwrap_err();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
        assert!(!error.contains(SHARED), "a secret was printed: {error}");
    }
}

/// A token of the hub's own key whose claims are this very text.
fn own_raw(text: &str) -> String {
    let message = format!("{}.{}", encode(&json!({"alg": "HS256"})), URL_SAFE_NO_PAD.encode(text));
    let key = EncodingKey::from_secret(OWN.as_bytes());
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

#[tokio::test]
async fn a_lone_surrogate_in_a_claim_nobody_needs_does_not_spoil_the_token() {
    let door = Door::new("roles_claim = \"access.roles\"");
    let exp = SECONDS + 60;
    for odd in [
        r#""name": "\ud800""#,
        r#""name": ["\udfff", {"deep": "\ud83d"}]"#,
        r#""\ud800": 1"#,
        r#""number": 1e400"#,
        r#""access": {"roles": ["viewer"], "name": "\ud800"}"#,
    ] {
        let token = own_raw(&format!(r#"{{"sub": "ada", "exp": {exp}, {odd}}}"#));
        assert_eq!(&*door.show(&token).await.unwrap().name, "ada", "{odd}");
    }
    // What is needed must be readable: two such names could not be told apart.
    for odd in [
        r#""sub": "\ud800""#,
        r#""subscribe": ["\ud800"]"#,
        r#""access": {"roles": ["\ud800"]}"#,
        r#""exp": 1e400"#,
    ] {
        let token = own_raw(&format!(r#"{{"sub": "ada", "exp": {exp}, {odd}}}"#));
        door.reason(&token).await;
    }
}

#[tokio::test]
async fn issuer_audience_and_roles_are_bound_to_the_key_that_signed() {
    let bounds = "issuer = \"https://id.example\"\naudience = [\"hub\"]\nroles = [\"viewer\"]\n";
    let key = format!("[[keys]]\nkid = \"a\"\nalgorithm = \"HS256\"\nsecret = \"{SHARED}\"\n");
    let door = Door::new(&format!("{key}{bounds}"));
    let header = json!({"alg": "HS256", "kid": "a"});
    let token = |change| hmac(&header, &claims(change), SHARED);
    let good = json!({"iss": "https://id.example", "aud": "hub", "role": ["viewer", "admin"]});
    let principal = door.show(&token(good)).await.unwrap();
    assert!(principal.may_subscribe(&pattern("**")) && !principal.admin, "{principal:?}");
    let reason = door.reason(&token(json!({"aud": "hub"}))).await;
    assert!(reason.contains("no `iss`"), "{reason}");
    let other = json!({"iss": "https://other.example", "aud": "hub"});
    assert!(door.reason(&token(other)).await.contains("`iss`"));
    let other = json!({"iss": "https://id.example", "aud": "shop"});
    assert!(door.reason(&token(other)).await.contains("`aud`"));
    // The hub's own key is bound by none of that.
    assert!(door.show(&own(&claims(json!({"role": "admin"})))).await.unwrap().admin);
    let refused = Door::try_new(&format!("{key}roles = [\"viewr\"]\n")).err().unwrap();
    assert!(refused.contains("viewr"), "{refused}");
}

#[tokio::test]
async fn a_key_for_viewers_signed_itself_the_right_to_publish() {
    let may_publish = |who: &Principal, topic: &str| who.may_publish(&Topic::parse(topic).unwrap());
    let claimed =
        json!({"subscribe": ["a.**", "hub.**"], "publish": ["**", "calls.notes", "*.notes"]});
    let show = async |roles: &str| {
        let key = format!("[[keys]]\nkid = \"a\"\nalgorithm = \"HS256\"\nsecret = \"{SHARED}\"\n");
        let own = "[roles.call-centre]\nsubscribe = []\npublish = [\"calls.**\"]\n";
        let door = Door::new(&format!("{key}{roles}{own}"));
        let header = json!({"alg": "HS256", "kid": "a"});
        door.show(&hmac(&header, &claims(claimed.clone()), SHARED)).await.unwrap()
    };
    let viewer = show("roles = [\"viewer\"]\n").await;
    assert!(!may_publish(&viewer, "calls.notes"), "{viewer:?}");
    assert!(viewer.may_subscribe(&pattern("a.b")), "what lies within its roles counts: {viewer:?}");
    assert!(!viewer.may_subscribe(&pattern("hub.metrics")), "{viewer:?}");
    let both = show("roles = [\"viewer\", \"call-centre\"]\n").await;
    assert!(may_publish(&both, "calls.notes") && !may_publish(&both, "shop.notes"), "{both:?}");
    let nothing = show("roles = []\n").await;
    assert!(!nothing.may_subscribe(&pattern("a.b")), "{nothing:?}");
    let unbound = show("").await;
    assert!(may_publish(&unbound, "x") && unbound.may_subscribe(&pattern("hub.metrics")));
}

#[tokio::test]
async fn a_token_that_never_ends_is_refused_where_a_longest_life_is_set() {
    let (open, strict) = (Door::new(""), Door::new("longest_life = \"30d\""));
    let month = 30 * 86_400;
    for (exp, fits) in [
        (json!(1e308), false),
        (json!(SECONDS + month + 60), false),
        (json!(SECONDS + month), true),
    ] {
        let token = own(&claims(json!({"exp": exp})));
        assert!(open.show(&token).await.is_ok(), "{exp}");
        assert_eq!(strict.show(&token).await.is_ok(), fits, "{exp}");
    }
    let wanted = MintClaims {
        sub: "ada".into(),
        subscribe: Vec::new(),
        publish: Vec::new(),
        role: None,
        ttl: Span::seconds(36_500 * 86_400),
    };
    let mint = |text| auth::mint(&auth_config(text), &OWN.into(), &wanted, NOW);
    assert!(mint("").is_ok());
    assert!(mint("longest_life = \"30d\"").unwrap_err().to_string().contains("30d"));
}
