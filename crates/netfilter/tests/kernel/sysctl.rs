use crate::support::{alone, tool};
use portcullis_netfilter::sysctl;
use std::io::ErrorKind;

#[test]
fn a_setting_is_of_the_threads_namespace() {
    alone(|| {
        let path = "net/ipv4/conf/lo/rp_filter";
        sysctl::write(path, "2").unwrap();
        assert_eq!(sysctl::read(path).unwrap(), "2");
        assert_eq!(tool("sysctl -n net.ipv4.conf.lo.rp_filter").trim(), "2");
    });
}

#[test]
fn an_error_says_which_setting_and_what_for() {
    let missing = sysctl::read("net/no/such").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(
        missing
            .to_string()
            .starts_with("reading /proc/sys/net/no/such: ")
    );
    alone(|| {
        let refused = sysctl::write("net/ipv4/ip_forward", "perhaps").unwrap_err();
        let text = refused.to_string();
        assert!(text.starts_with("writing perhaps to /proc/sys/net/ipv4/ip_forward: "));
    });
}
