//! The code that speaks gRPC is made from its description, and in git beside it.

use std::{fs, path::Path};

#[test]
fn the_code_that_speaks_grpc_is_that_of_its_description() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let made = tempfile::tempdir().unwrap();
    let files = protox::compile([folder.join("flext.proto")], [&folder]).unwrap();
    let maker = tonic_prost_build::configure().btree_map(".").out_dir(made.path());
    maker.compile_fds(files).unwrap();
    let wanted = fs::read_to_string(made.path().join("flext.rs")).unwrap();
    let kept = folder.join("flext.rs");
    if std::env::var_os("UPDATE_PROTO").is_some() {
        fs::write(&kept, &wanted).unwrap();
    }
    let is_current = fs::read_to_string(&kept).unwrap() == wanted;
    assert!(is_current, "proto/flext.rs is of another description: UPDATE_PROTO=1 cargo test grpc");
}
