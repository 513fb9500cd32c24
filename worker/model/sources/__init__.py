"""Where bundles come from: a folder, S3 or a model hub. `locate` finds, fetches and verifies one."""
