//! Messages and the service's two ends, out of `proto/watch.proto`.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure().compile_protos(&["proto/watch.proto"], &["proto"])
}
