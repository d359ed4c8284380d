//! One method of one path: who may use it, its parameters, and its answers.

/// One method of one path.
#[derive(Debug)]
pub struct Operation {
    /// In small letters.
    pub method: &'static str,
    /// As in the route table.
    pub path: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    pub(super) about: &'static str,
    pub(super) access: OperationAccess,
    pub(super) parameters: &'static [Parameter],
    /// Content types and the schemas of what comes in them.
    pub(super) body: &'static [(&'static str, &'static str)],
    pub(super) answers: &'static [Answer],
    /// Codes of problems.
    pub(super) refusals: &'static [&'static str],
}

/// Who may use it.
#[derive(Debug, Clone, Copy)]
pub(super) enum OperationAccess {
    /// Anybody.
    Open,
    /// Anybody with credentials and the grants that the text names.
    Granted,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum ParameterPlace {
    Path,
    Query,
    Header,
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) place: ParameterPlace,
    pub(super) kind: &'static str,
    pub(super) is_required: bool,
    pub(super) about: &'static str,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) about: &'static str,
    /// Content type and schema.
    pub(super) content: Option<(&'static str, &'static str)>,
}

impl Operation {
    pub(super) const fn new(
        method: &'static str,
        path: &'static str,
        tag: &'static str,
        summary: &'static str,
    ) -> Self {
        Self {
            method,
            path,
            tag,
            summary,
            about: "",
            access: OperationAccess::Granted,
            parameters: &[],
            body: &[],
            answers: &[],
            refusals: &[],
        }
    }

    pub(super) const fn about(mut self, about: &'static str) -> Self {
        self.about = about;
        self
    }

    pub(super) const fn open(mut self) -> Self {
        self.access = OperationAccess::Open;
        self
    }

    pub(super) const fn takes(mut self, parameters: &'static [Parameter]) -> Self {
        self.parameters = parameters;
        self
    }

    pub(super) const fn reads(mut self, body: &'static [(&'static str, &'static str)]) -> Self {
        self.body = body;
        self
    }

    pub(super) const fn answers(mut self, answers: &'static [Answer]) -> Self {
        self.answers = answers;
        self
    }

    pub(super) const fn refuses(mut self, refusals: &'static [&'static str]) -> Self {
        self.refusals = refusals;
        self
    }

    /// The codes of all problems it may answer.
    pub fn refusals(&self) -> &'static [&'static str] {
        self.refusals
    }

    /// A name for generated clients: the method and the words of the path.
    pub(super) fn id(&self) -> String {
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric());
        let words = words.filter(|word| !word.is_empty() && !["api", "v1"].contains(word));
        words.fold(self.method.to_owned(), |id, word| format!("{id}_{word}"))
    }
}

pub(super) const fn query(
    name: &'static str,
    kind: &'static str,
    about: &'static str,
) -> Parameter {
    Parameter { name, place: ParameterPlace::Query, kind, is_required: false, about }
}

pub(super) const fn required(
    name: &'static str,
    kind: &'static str,
    about: &'static str,
) -> Parameter {
    Parameter { name, place: ParameterPlace::Query, kind, is_required: true, about }
}

pub(super) const fn path(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, place: ParameterPlace::Path, kind: "string", is_required: true, about }
}

pub(super) const fn header(name: &'static str, about: &'static str) -> Parameter {
    Parameter { name, place: ParameterPlace::Header, kind: "string", is_required: false, about }
}

pub(super) const fn json_of(status: u16, schema: &'static str, about: &'static str) -> Answer {
    Answer { status, about, content: Some(("application/json", schema)) }
}

pub(super) const fn other(status: u16, media: &'static str, about: &'static str) -> Answer {
    Answer { status, about, content: Some((media, "string")) }
}

pub(super) const fn empty(status: u16, about: &'static str) -> Answer {
    Answer { status, about, content: None }
}
