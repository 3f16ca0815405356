//! The plane on a host's bridges, with whole VMs: what an exact frame at a single port doesn't show. Needs
//! root.

mod bed;
mod elision;
mod firewalld;
mod foreign;
mod restart;
mod sharing;
mod traffic;

/// A test for each of the two back ends of iptables.
macro_rules! with_each_backend {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            use portcullis_dataplane_iptables::Backend;

            #[test]
            fn nft() {
                super::$name(Backend::Nft);
            }

            #[test]
            fn legacy() {
                super::$name(Backend::Legacy);
            }
        }
    )* };
}
pub(crate) use with_each_backend;
