"""Data: image-caption sets looked over and edited. What is changed is changed by `loraloom data edit`'s own functions.

routes.py      what is answered
sets.py        the sets below the roots, and the registered ones, with counts
pages.py       one set as it is now: filters, tags, a page of images
requests.py    edits as the page asks for them
sizes.py       sizes, buckets and crops as training makes them
findings.py    `loraloom data lint` in a thread
masks.py       a mask as training reads it
uploads.py     files that were dropped, until they are added
jobs.py        captions and masks by a model, through the queue
"""
