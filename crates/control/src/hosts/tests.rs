use super::*;
use crate::trial::{Site, admin, check_refused, member};

fn host(id: &str, tunnel_address: Option<&str>) -> Host {
    Host {
        id: HostId::from(id),
        tunnel_address: tunnel_address.map(|text| text.parse().expect("an address")),
        tagged: false,
        tags: Default::default(),
        settings: None,
    }
}

#[tokio::test]
async fn a_host_is_put_and_goes() {
    let site = Site::new().await;
    for (what, who, host, expected) in [
        ("a member", member("red"), host("h1", None), "NotAuthorized"),
        ("no name", admin(), host("", None), "InvalidInput"),
        ("no name", admin(), host("h/1", None), "InvalidInput"),
        (
            "mapped",
            admin(),
            host("h1", Some("::ffff:10.0.0.1")),
            "InvalidInput",
        ),
        ("new", admin(), host("h1.example", Some("10.0.0.1")), "done"),
        (
            "other address",
            admin(),
            host("h1.example", Some("10.0.0.2")),
            "done",
        ),
    ] {
        check_refused(what, site.control.put_host(&who, host).await, expected);
    }
    let before = site.control.state().revision;
    let again = host("h1.example", Some("10.0.0.2"));
    site.control
        .put_host(&admin(), again)
        .await
        .expect("it is so");
    assert_eq!(site.control.state().revision, before, "nothing is written");
    for (who, expected) in [
        (member("red"), "NotAuthorized"),
        (admin(), "done"),
        (admin(), "HostNotFound"),
    ] {
        let deleted = site.control.delete_host(&who, "h1.example").await;
        check_refused(&format!("{who:?}"), deleted, expected);
    }
    site.inventory_followed();
}
