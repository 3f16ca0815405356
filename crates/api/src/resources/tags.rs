//! Tags of objects: a sub-resource.

use crate::attribute::{Attribute, NAME, Shape, shown};
use crate::body;
use crate::fault::Fault;
use crate::kinds::{Change, Kind};
use control::{Control, Tagged};

/// What is set by name, or all at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action<'a> {
    Set(&'a [u8]),
    Clear,
    Add(&'a str),
    Remove(&'a str),
}

pub(crate) const TAGS: Attribute = shown("tags", Shape::List(&NAME), "");

pub(crate) async fn act(
    control: &Control,
    change: Change<'_>,
    (kind, id): (Kind, &str),
    action: Action<'_>,
) -> Result<(), Fault> {
    let tagged = tagged(kind, id).ok_or_else(Fault::nothing_here)?;
    match action {
        Action::Set(bytes) => {
            let tags = body::bare(bytes, &TAGS)?;
            control.set_tags(change.who, tagged, &tags).await?;
        }
        Action::Clear => control.clear_tags(change.who, tagged).await?,
        Action::Add(tag) => {
            NAME.check(&tag.into())
                .map_err(|why| Fault::input("tags", why))?;
            control.add_tag(change.who, tagged, tag).await?;
        }
        Action::Remove(tag) => control.remove_tag(change.who, tagged, tag).await?,
    }
    Ok(())
}

/// `None`: a kind that has no tags.
fn tagged(kind: Kind, id: &str) -> Option<Tagged<'_>> {
    Some(match kind {
        Kind::Group => Tagged::Group(id),
        Kind::Rule => Tagged::Rule(id),
        Kind::Addresses => Tagged::Addresses(id),
        Kind::Network => Tagged::Network(id),
        Kind::Subnet => Tagged::Subnet(id),
        Kind::Port => Tagged::Port(id),
        Kind::TemplateRule | Kind::Share | Kind::Host => return None,
    })
}
