//! Compiles the bench's traffic: traffic.bpf.c -> traffic.bpf.o, which the bench embeds.

fn main() {
    bpf_build::compile("src/bench/traffic.bpf.c", &[]);
}
