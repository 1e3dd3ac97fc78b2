// A server of Go's own net/http that says what it was asked. Built out of the workspace: nothing that ships depends on it.
module lateen.dev/e2e/backend

go 1.26.0
