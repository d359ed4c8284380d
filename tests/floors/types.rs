//! The names of the types that the files of a crate define.

use syn::{
    Attribute, File, Ident, Item,
    visit::{self, Visit},
};

/// Every type's name: those inside functions too, but none of tests, and none that an `impl` gives to a trait's type.
pub(super) fn type_names(file: &File) -> Vec<String> {
    let mut found = Types::default();
    found.visit_file(file);
    found.0
}

#[derive(Default)]
struct Types(Vec<String>);

impl<'a> Visit<'a> for Types {
    fn visit_item(&mut self, item: &'a Item) {
        let (attributes, name): (&[Attribute], Option<&Ident>) = match item {
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Union(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            Item::Mod(item) => (&item.attrs, None),
            Item::Fn(item) => (&item.attrs, None),
            Item::Impl(item) => (&item.attrs, None),
            _ => (&[], None),
        };
        if !attributes.iter().any(super::code::is_cfg_test) {
            self.0.extend(name.map(Ident::to_string));
            visit::visit_item(self, item);
        }
    }
}
