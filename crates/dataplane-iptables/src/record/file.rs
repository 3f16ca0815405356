//! A record's form in its file.
//!
//! Place on the line: record -> **file** -> JSON, and back. Text is borrowed both ways: there may be thousands of
//! names, and each call of a short-lived process reads and writes them all.
//! Knows nothing of: files, when a record counts.

use super::InForce;
use crate::books::{Books, MembersName, Pool, ProfileName};
use crate::stamps::Stamps;
use dataplane::{Bridge, Device, Target};
use model::PortId;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Of what is enforced nothing is said here: another build may say it in another way.
#[derive(Deserialize)]
pub(super) struct Known<'a> {
    pub(super) place: String,
    pub(super) build: String,
    #[serde(borrow)]
    books: BooksForm<'a>,
}

#[derive(Deserialize)]
pub(super) struct Enforced<'a> {
    #[serde(borrow)]
    in_force: InForceForm<'a>,
}

#[derive(Serialize)]
pub(super) struct Written<'a> {
    pub(super) place: String,
    pub(super) build: String,
    books: BooksForm<'a>,
    in_force: InForceForm<'a>,
}

#[derive(Deserialize, Serialize)]
struct BooksForm<'a> {
    bridges: PoolForm<u32>,
    #[serde(borrow)]
    networks: PoolForm<Text<'a>>,
    #[serde(borrow)]
    profiles: PoolForm<(Text<'a>, Vec<Text<'a>>)>,
    #[serde(borrow)]
    members: PoolForm<MembersForm<'a>>,
}

#[derive(Deserialize, Serialize)]
struct PoolForm<K> {
    last: u16,
    numbers: Vec<(u16, K)>,
}

#[derive(Deserialize, Serialize)]
enum MembersForm<'a> {
    #[serde(borrow)]
    Group((Text<'a>, Text<'a>)),
    AddressGroup(Text<'a>),
}

#[derive(Deserialize, Serialize)]
struct InForceForm<'a> {
    view: u64,
    #[serde(borrow)]
    devices: Vec<(Text<'a>, DeviceForm<'a>)>,
    #[serde(borrow)]
    closed: Vec<DeviceForm<'a>>,
    #[serde(borrow)]
    bridges: Vec<BridgeForm<'a>>,
    stamps: Option<Stamps>,
}

#[derive(Deserialize, Serialize)]
struct BridgeForm<'a> {
    #[serde(borrow)]
    device: DeviceForm<'a>,
    macs: Vec<String>,
    #[serde(borrow)]
    members: Vec<DeviceForm<'a>>,
}

/// Its index and its name.
#[derive(Deserialize, Serialize)]
struct DeviceForm<'a>(u32, #[serde(borrow)] Text<'a>);

/// As it stands in the file, unless something in it is escaped there.
#[derive(Deserialize, Serialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Written<'a> {
    pub(super) fn of(
        (place, build): (String, String),
        books: &'a Books,
        (target, view): (&'a Target, u64),
        stamps: Option<&Stamps>,
    ) -> Self {
        let devices = target.devices.iter();
        let bridges = target.bridges.iter();
        Self {
            place,
            build,
            books: BooksForm::of(books),
            in_force: InForceForm {
                view,
                devices: devices
                    .map(|(port, device)| (text(port.as_str()), DeviceForm::of(device)))
                    .collect(),
                closed: target.closed.iter().map(DeviceForm::of).collect(),
                bridges: bridges
                    .map(|(device, bridge)| BridgeForm {
                        device: DeviceForm::of(device),
                        macs: bridge.macs.iter().map(ToString::to_string).collect(),
                        members: bridge.members.iter().map(DeviceForm::of).collect(),
                    })
                    .collect(),
                stamps: stamps.cloned(),
            },
        }
    }
}

impl Known<'_> {
    pub(super) fn books(self) -> Books {
        let mut books = Books::default();
        self.books.bridges.fill(&mut books.bridges, |of| of);
        self.books
            .networks
            .fill(&mut books.networks, |Text(of)| (*of).into());
        self.books
            .profiles
            .fill(&mut books.profiles, |(Text(scope), groups)| ProfileName {
                scope: (*scope).into(),
                groups: groups.iter().map(|Text(group)| (**group).into()).collect(),
            });
        self.books
            .members
            .fill(&mut books.members, |name| match name {
                MembersForm::Group((Text(scope), Text(group))) => {
                    MembersName::Group((*scope).into(), (*group).into())
                }
                MembersForm::AddressGroup(Text(group)) => {
                    MembersName::AddressGroup((*group).into())
                }
            });
        books
    }
}

impl Enforced<'_> {
    /// `None`: something in it makes no sense.
    pub(super) fn in_force(self) -> Option<InForce> {
        let form = self.in_force;
        let bridges = form.bridges.into_iter().map(|of| {
            let macs = of.macs.iter().map(|mac| mac.parse().ok());
            let bridge = Bridge {
                macs: macs.collect::<Option<_>>()?,
                members: of.members.into_iter().map(DeviceForm::device).collect(),
            };
            Some((of.device.device(), bridge))
        });
        let devices = form.devices.into_iter();
        Some(InForce {
            view: form.view,
            devices: devices
                .map(|(Text(port), device)| (PortId::new(&*port), device.device()))
                .collect(),
            closed: form.closed.into_iter().map(DeviceForm::device).collect(),
            bridges: bridges.collect::<Option<_>>()?,
            stamps: form.stamps,
        })
    }
}

impl<'a> BooksForm<'a> {
    fn of(books: &'a Books) -> Self {
        Self {
            bridges: PoolForm::of(&books.bridges, |of| *of),
            networks: PoolForm::of(&books.networks, |of| text(of.as_str())),
            profiles: PoolForm::of(&books.profiles, |of| {
                let groups = of.groups.iter().map(|group| text(group.as_str()));
                (text(of.scope.as_str()), groups.collect())
            }),
            members: PoolForm::of(&books.members, |of| match of {
                MembersName::Group(scope, group) => {
                    MembersForm::Group((text(scope.as_str()), text(group.as_str())))
                }
                MembersName::AddressGroup(group) => MembersForm::AddressGroup(text(group.as_str())),
            }),
        }
    }
}

impl<F> PoolForm<F> {
    fn of<'a, K: Ord + Clone + 'a>(pool: &'a Pool<K>, form: impl Fn(&'a K) -> F) -> Self {
        Self {
            last: pool.last(),
            numbers: pool
                .all()
                .map(|(key, number)| (number, form(key)))
                .collect(),
        }
    }

    fn fill<K: Ord + Clone>(self, pool: &mut Pool<K>, key: impl Fn(F) -> K) {
        let numbers = self.numbers.into_iter();
        let numbers = numbers.map(|(number, form)| (key(form), number));
        pool.restore(numbers.collect(), self.last);
    }
}

impl<'a> DeviceForm<'a> {
    fn of(device: &'a Device) -> Self {
        Self(device.ifindex, text(&device.name))
    }

    fn device(self) -> Device {
        let Self(ifindex, Text(name)) = self;
        Device {
            name: name.into_owned(),
            ifindex,
        }
    }
}

fn text(text: &str) -> Text<'_> {
    Text(Cow::Borrowed(text))
}
