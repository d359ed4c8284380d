//! The page in `web/dist` is compiled in; a page built anew makes the program be built anew. The code
//! that speaks gRPC is made from `proto`, by a compiler that is a crate: no machine needs `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=web/dist");
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/flext.proto"], ["proto"])?;
    tonic_prost_build::configure().btree_map(".").compile_fds(files)?;
    Ok(())
}
