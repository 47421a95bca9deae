"""The process that owns the accelerator: the engine behind HTTP, without a database; what may be done says a ticket."""
