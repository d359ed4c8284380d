//! The page in `web/dist` is compiled in; a page built anew makes the program be built anew.

fn main() {
    println!("cargo:rerun-if-changed=web/dist");
}
