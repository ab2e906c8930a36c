// Small programs that a cluster needs and nobody publishes alone.
module splitter.test/tools/helpers

go 1.26.0
