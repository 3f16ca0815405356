//! The API as its clients meet it: real servers on the loopback, by HTTP, row by row of what is promised.

mod bed;
mod client;
#[expect(dead_code, reason = "others kill and pause it")]
#[path = "../../../store-etcd/tests/etcd/server.rs"]
mod etcd;
mod schema;

mod address_groups;
mod backups;
mod bindings;
mod clients;
mod connections;
mod fuzz;
mod groups;
mod hundreds;
mod identities;
mod keystone;
mod keystone_faults;
mod lists;
mod networks;
mod policy_files;
mod ports;
mod requests;
mod rules;
mod sharing;
mod tags_and_quotas;
