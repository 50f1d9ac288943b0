"""Offer what Dynamo's parser imports. `BuildConfig` is gone since 1.3.0rc21."""
