use super::*;
use crate::objects::{AskedPeer, Asks, GroupRule};
use crate::trial::{Site, admin, check_refused, member, one, reader};
use model::{Direction, Family};

fn texts(texts: &[&str]) -> Vec<String> {
    Vec::from_iter(texts.iter().map(|text| text.to_string()))
}

fn new(prefixes: &[&str]) -> NewAddresses {
    NewAddresses {
        prefixes: texts(prefixes),
        ..Default::default()
    }
}

async fn made(site: &Site, prefixes: &[&str]) -> AddressGroupId {
    let ids = site
        .control
        .create_addresses(&member("red"), vec![new(prefixes)])
        .await;
    one(ids.expect("an address group"))
}

fn shown(site: &Site, id: &AddressGroupId) -> String {
    let state = site.control.state();
    let prefixes = Vec::from_iter(&state.addresses[id].prefixes);
    listed(&prefixes)
}

#[tokio::test]
async fn prefixes_have_a_mask_and_one_form() {
    let site = Site::new().await;
    for (text, expected) in [
        ("10.0.0.0/8", Ok("10.0.0.0/8")),
        ("10.0.0.5/24", Ok("10.0.0.0/24")),
        ("10.0.0.5/32", Ok("10.0.0.5/32")),
        ("2001:DB8::1/128", Ok("2001:db8::1/128")),
        ("0.0.0.0/0", Ok("0.0.0.0/0")),
        ("10.0.0.5", Err("InvalidInput")),
        ("10.0.0.0/33", Err("InvalidInput")),
        ("10.0.0.0/٨", Err("InvalidInput")),
        ("::ffff:10.0.0.0/120", Err("InvalidInput")),
        ("ten/8", Err("InvalidInput")),
    ] {
        let made = site
            .control
            .create_addresses(&member("red"), vec![new(&[text])])
            .await;
        match expected {
            Ok(expected) => assert_eq!(shown(&site, &one(made.expect(text))), expected),
            Err(expected) => check_refused(text, made, expected),
        }
    }
}

#[tokio::test]
async fn addresses_come_and_go() {
    let site = Site::new().await;
    let red = member("red");
    let id = made(&site, &["10.0.0.0/8"]).await;
    let add = |prefixes: &[&str]| {
        site.control
            .add_addresses(&red, id.as_str(), texts(prefixes))
    };
    let remove = |prefixes: &[&str]| {
        site.control
            .remove_addresses(&red, id.as_str(), texts(prefixes))
    };
    check_refused("new", add(&["10.1.0.0/16", "10.2.0.0/16"]).await, "done");
    check_refused(
        "there",
        add(&["10.3.0.0/16", "10.1.0.9/16"]).await,
        "AddressesAlreadyExist",
    );
    check_refused(
        "missing",
        remove(&["10.1.0.0/16", "10.3.0.0/16"]).await,
        "AddressesNotFound",
    );
    check_refused(
        "removed",
        remove(&["10.0.0.0/8", "10.1.0.0/16"]).await,
        "done",
    );
    assert_eq!(shown(&site, &id), "10.2.0.0/16");
    check_refused("the last", remove(&["10.2.0.0/16"]).await, "done");
    assert_eq!(shown(&site, &id), "", "and it is nobody's address then");
    site.inventory_followed();
}

#[tokio::test]
async fn the_most_that_a_group_holds() {
    let site = Site::new().await;
    let all =
        Vec::from_iter((0..=MOST_PREFIXES).map(|n| format!("10.{}.{}.0/24", n / 256, n % 256)));
    let most = Vec::from_iter(all[1..].iter().map(String::as_str));
    let id = made(&site, &most).await;
    let more = site
        .control
        .add_addresses(&member("red"), id.as_str(), vec![all[0].clone()])
        .await;
    check_refused("one more", more, "TooMany");
}

#[tokio::test]
async fn who_may_change_an_address_group() {
    let site = Site::new().await;
    let id = made(&site, &["10.0.0.0/8"]).await;
    let patch = AddressesPatch {
        name: Some("x".to_owned()),
        ..Default::default()
    };
    for (who, expected) in [
        (member("blue"), "AddressGroupNotFound"),
        (reader("red"), "NotAuthorized"),
        (member("red"), "done"),
        (admin(), "done"),
    ] {
        let what = format!("{who:?}");
        let updated = site
            .control
            .update_addresses(&who, id.as_str(), patch.clone(), None)
            .await;
        check_refused(&what, updated, expected);
    }
    let made = site
        .control
        .create_addresses(&reader("red"), vec![new(&[])])
        .await;
    check_refused("reader", made, "NotAuthorized");
    let over = site
        .control
        .delete_addresses(&member("red"), id.as_str(), Some(1))
        .await;
    check_refused("revision", over, "RevisionConstraint");
}

#[tokio::test]
async fn an_address_group_stays_while_rules_name_it() {
    let site = Site::new().await;
    let red = member("red");
    let id = made(&site, &["10.0.0.0/8"]).await;
    let group = site
        .control
        .default_group(&red, &"red".into())
        .await
        .expect("a group");
    let rule = GroupRule {
        id: "r".into(),
        group,
        project: "red".into(),
        said: Default::default(),
        asks: Asks {
            direction: Direction::Ingress,
            family: Family::V4,
            protocol: None,
            range_min: None,
            range_max: None,
            peer: AskedPeer::Addresses(id.clone()),
        },
    };
    let made = site.control.carry_out(|state, now| {
        let mut draft = Draft::new(state, now);
        draft.depend(&state.addresses[&id]);
        draft.create(&rule);
        draft.decided(())
    });
    made.await.expect("a rule");
    let delete = || site.control.delete_addresses(&red, id.as_str(), None);
    check_refused("named", delete().await, "AddressGroupInUse");
    let gone = site.control.carry_out(|state, now| {
        let mut draft = Draft::new(state, now);
        draft.delete(state.rule(&rule.id).expect("it is there"));
        draft.decided(())
    });
    gone.await.expect("no rule");
    check_refused("not named", delete().await, "done");
    check_refused("gone", delete().await, "AddressGroupNotFound");
    site.inventory_followed();
}
