// aws-sdk-js v3: client-s3, lib-storage for uploads in parts, s3-request-presigner.

import { createReadStream } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import * as S3 from '@aws-sdk/client-s3'
import { Upload } from '@aws-sdk/lib-storage'
import { getSignedUrl } from '@aws-sdk/s3-request-presigner'
import { endpoint, region, serve } from './driver.mjs'
import manifest from '@aws-sdk/client-s3/package.json' with { type: 'json' }

const MIB = 1 << 20
const s3 = new S3.S3Client({ endpoint, region, forcePathStyle: true })

async function save(path, answer) {
  await writeFile(path, Buffer.from(await answer.Body.transformToByteArray()))
}

await serve({
  version: () => manifest.version,
  async put({ bucket: Bucket, key: Key, path }) {
    await s3.send(new S3.PutObjectCommand({ Bucket, Key, Body: await readFile(path) }))
  },
  async multipart({ bucket: Bucket, key: Key, path }) {
    const params = { Bucket, Key, Body: createReadStream(path) }
    await new Upload({ client: s3, partSize: 5 * MIB, params }).done()
  },
  async get({ bucket: Bucket, key: Key, path }) { await save(path, await s3.send(new S3.GetObjectCommand({ Bucket, Key }))) },
  async range({ bucket: Bucket, key: Key, first, last, path }) {
    await save(path, await s3.send(new S3.GetObjectCommand({ Bucket, Key, Range: `bytes=${first}-${last}` })))
  },
  async list({ bucket: Bucket, prefix: Prefix }) {
    const found = []
    for await (const page of S3.paginateListObjectsV2({ client: s3, pageSize: 5 }, { Bucket, Prefix })) {
      found.push(...(page.Contents ?? []).map((entry) => entry.Key))
    }
    return found
  },
  async copy({ bucket: Bucket, key, to: Key }) {
    await s3.send(new S3.CopyObjectCommand({ Bucket, Key, CopySource: `${Bucket}/${encodeURIComponent(key)}` }))
  },
  async delete({ bucket: Bucket, key: Key }) { await s3.send(new S3.DeleteObjectCommand({ Bucket, Key })) },
  sign_get({ bucket: Bucket, key: Key }) { return getSignedUrl(s3, new S3.GetObjectCommand({ Bucket, Key })) },
  sign_put({ bucket: Bucket, key: Key }) { return getSignedUrl(s3, new S3.PutObjectCommand({ Bucket, Key })) },
  async get_former({ bucket: Bucket, key: Key, path }) {
    const found = await s3.send(new S3.ListObjectVersionsCommand({ Bucket, Prefix: Key }))
    const former = found.Versions.find((entry) => !entry.IsLatest)
    await save(path, await s3.send(new S3.GetObjectCommand({ Bucket, Key, VersionId: former.VersionId })))
  },
})
