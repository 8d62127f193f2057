"""Every object a Tenant stands for, as manifests: one file per rendered kind, `render` puts them together.

Pure: keys, images and names come in as arguments.  A renderer that mints or reads anything is a bug.
"""
