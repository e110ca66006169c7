use super::*;

async fn accounts(folder: &tempfile::TempDir, clock: &Clock) -> Handle {
    let catalog = Catalog::open(&folder.path().join("catalog.sqlite")).await.unwrap();
    Handle::new(catalog, clock.clone(), Entropy::seeded(1))
}

#[tokio::test]
async fn every_id_form_of_a_person_is_the_same_user() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = accounts(&folder, &Clock::manual(1)).await;
    let user = accounts.test_user().await.unwrap();
    assert_eq!(accounts.by_openid(TEST_OPENID).await.unwrap().user_id, user.user_id);
    assert_eq!(accounts.by_any_id(TEST_OPENID).await.unwrap().user_id, user.user_id);
    assert_eq!(accounts.by_any_id(&user.user_id.to_string()).await.unwrap().user_id, user.user_id);
    assert_ne!(accounts.by_any_id("u1").await.unwrap().user_id, user.user_id);
    assert!(matches!(accounts.by_openid("").await, Err(Error::InvalidOpenid)));
    assert!(matches!(accounts.by_openid("a b").await, Err(Error::InvalidOpenid)));
    let device = "2025001".parse().unwrap();
    assert!(!accounts.is_bound(&device).await.unwrap());
    accounts.bind(user.user_id, &device).await.unwrap();
    accounts.bind(user.user_id, &device).await.unwrap();
    assert!(accounts.is_bound(&device).await.unwrap());
}

#[tokio::test]
async fn a_token_speaks_for_its_subject_until_it_expires_or_is_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1_000_000);
    let accounts = accounts(&folder, &clock).await;
    let user = accounts.test_user().await.unwrap().user_id;
    let device: schemas::DeviceCode = "2025001".parse().unwrap();
    let scopes: Scopes = "sessions:read,sql".parse().unwrap();
    for (subject, caller) in [
        (Subject::Device(device.clone()), Caller::Device(device)),
        (Subject::User(user), Caller::User { user, language: None }),
    ] {
        let issued = accounts.issue(&subject, None, None, "test").await.unwrap();
        assert_eq!(accounts.authenticate(&issued.token).await.unwrap(), Some(caller));
        assert!(!format!("{issued:?}").contains(&issued.token), "a token must not get into a log");
    }
    let key = accounts.issue(&Subject::Key(scopes), Some("notebook"), None, "test").await.unwrap();
    let caller = accounts.authenticate(&key.token).await.unwrap().unwrap();
    assert!(matches!(&caller, Caller::Key { scopes, .. } if scopes.has(Scope::Sql) && !scopes.has(Scope::DevicesRead)));
    assert!(accounts.revoke(&key.info.token_id, "test").await.unwrap());
    assert!(!accounts.revoke(&key.info.token_id, "test").await.unwrap());
    assert_eq!(accounts.authenticate(&key.token).await.unwrap(), None);

    let hour = std::time::Duration::from_secs(3600);
    let short = accounts.issue(&Subject::User(user), None, Some(hour), "test").await.unwrap();
    assert!(accounts.authenticate(&short.token).await.unwrap().is_some());
    clock.set_us(1_000_000 + 3_600_000_000);
    assert_eq!(accounts.authenticate(&short.token).await.unwrap(), None);
    for garbage in ["", "vu_", &short.info.token_id, &short.token.to_uppercase(), &"x".repeat(10_000)] {
        assert_eq!(accounts.authenticate(garbage).await.unwrap(), None, "{garbage}");
    }
    assert!(matches!(accounts.issue(&Subject::Key(Scopes::default()), None, None, "test").await, Err(Error::NoScopes)));
    assert!(matches!(
        accounts.issue(&Subject::Admin("eve".to_owned()), None, None, "test").await,
        Err(Error::NoAdmin { .. })
    ));
}

#[tokio::test]
async fn no_secret_is_in_the_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = accounts(&folder, &Clock::manual(1)).await;
    accounts.set_admin("alice", "correct horse battery", "test").await.unwrap();
    let login = accounts.login("alice", "correct horse battery").await.unwrap().unwrap();
    let code = accounts.new_pairing_code(&"2025001".parse().unwrap(), "test").await.unwrap();
    let mut stored = Vec::new();
    for file in std::fs::read_dir(folder.path()).unwrap() {
        stored.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let stored = String::from_utf8_lossy(&stored);
    for secret in ["correct horse", login.token.as_str(), code.replace('-', "").as_str()] {
        assert!(!stored.contains(secret), "{secret} is stored");
    }
    assert!(stored.contains("$argon2id$v=19$m=19456,t=2,p=1$"));
}

#[tokio::test]
async fn an_admin_logs_in_with_the_right_password_only() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = accounts(&folder, &Clock::manual(1)).await;
    accounts.set_admin("alice", "correct horse battery", "test").await.unwrap();
    let login = accounts.login("alice", "correct horse battery").await.unwrap().unwrap();
    let caller = accounts.authenticate(&login.token).await.unwrap();
    assert_eq!(caller, Some(Caller::Admin { name: "alice".into() }));
    for (name, password) in [("alice", "correct horse batterY"), ("alice", ""), ("bob", "correct horse battery")] {
        assert!(accounts.login(name, password).await.unwrap().is_none(), "{name} {password}");
    }
    assert!(matches!(accounts.set_admin("alice", "short", "test").await, Err(Error::WeakPassword)));
    assert!(matches!(accounts.set_admin("a b", "correct horse battery", "test").await, Err(Error::InvalidAdminName)));
    assert!(accounts.disable_admin("alice", "test").await.unwrap());
    assert_eq!(accounts.authenticate(&login.token).await.unwrap(), None, "shut out with all tokens");
    assert!(accounts.login("alice", "correct horse battery").await.unwrap().is_none());
    let log = accounts.audit_log(i64::MAX, 100).await.unwrap();
    let actions: Vec<&str> = log.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions, ["admin.disable", "token.create", "admin.set"]);
}

#[tokio::test]
async fn a_pairing_code_binds_its_device_once() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1);
    let accounts = accounts(&folder, &clock).await;
    let device = "2025001".parse().unwrap();
    let (user, other) = (accounts.by_openid("a").await.unwrap(), accounts.by_openid("b").await.unwrap());
    let first = accounts.new_pairing_code(&device, "test").await.unwrap();
    let second = accounts.new_pairing_code(&device, "test").await.unwrap();
    assert!(matches!(accounts.claim(user.user_id, &first).await, Err(Error::WrongPairingCode)), "replaced");
    let typed = format!(" {} ", second.to_uppercase().replace('-', " "));
    assert_eq!(accounts.claim(user.user_id, &typed).await.unwrap(), device);
    assert!(matches!(accounts.claim(other.user_id, &second).await, Err(Error::WrongPairingCode)), "used");
    assert!(accounts.is_bound_to(user.user_id, &device).await.unwrap());
    assert!(!accounts.is_bound_to(other.user_id, &device).await.unwrap());
    let late = accounts.new_pairing_code(&device, "test").await.unwrap();
    clock.set_us(1 + 24 * 3600 * 1_000_000);
    assert!(matches!(accounts.claim(other.user_id, &late).await, Err(Error::WrongPairingCode)), "expired");
}

#[tokio::test]
async fn a_group_code_stands_for_its_only_device_or_for_the_device_of_that_code() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = accounts(&folder, &Clock::manual(1)).await;
    let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
    assert_eq!(accounts.device_of_group("2025001").await.unwrap().as_str(), "2025001");
    accounts.set_group("court 1", None, std::slice::from_ref(&a), "test").await.unwrap();
    assert_eq!(accounts.device_of_group("court 1").await.unwrap(), a);
    accounts.set_group("court 1", Some("left"), &[a, b], "test").await.unwrap();
    assert!(matches!(accounts.device_of_group("court 1").await, Err(Error::AmbiguousGroup { devices: 2 })));
    assert!(matches!(accounts.device_of_group("court 2").await, Err(Error::NoDevice)));
    assert_eq!(accounts.groups().await.unwrap()[0].devices.len(), 2);
}
