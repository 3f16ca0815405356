//! The program in the place of CloudStack's script: the agent's calls on real hosts out of namespaces, by each
//! plane. Needs root.

mod bed;
mod calls;
mod faults;
mod handover;
mod live;
mod migration;
mod rules;

/// A test for each plane that a host may be on.
macro_rules! on_each_plane {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use crate::bed::On;

            #[test]
            fn nft() {
                super::$name(On::Nft);
            }

            #[test]
            fn legacy() {
                super::$name(On::Legacy);
            }

            #[test]
            fn ebpf() {
                super::$name(On::Ebpf);
            }
        }
    )* };
}
pub(crate) use on_each_plane;
