// minio-js.

import { readFileSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import * as Minio from 'minio'
import { accessKey, endpoint, region, secretKey, serve } from './driver.mjs'

const MIB = 1 << 20
const url = new URL(endpoint)
const connection = {
  endPoint: url.hostname, port: Number(url.port), useSSL: url.protocol === 'https:', accessKey, secretKey, region,
}
const s3 = new Minio.Client(connection)

async function bytes(stream) {
  const pieces = []
  for await (const piece of stream) pieces.push(piece)
  return Buffer.concat(pieces)
}

async function listed(bucket, prefix, options = {}) {
  const found = []
  for await (const entry of s3.listObjects(bucket, prefix, true, options)) found.push(entry)
  return found
}

await serve({
  version() {
    const entry = createRequire(import.meta.url).resolve('minio')
    const folder = entry.slice(0, entry.lastIndexOf('/node_modules/minio/') + '/node_modules/minio/'.length)
    return JSON.parse(readFileSync(folder + 'package.json', 'utf8')).version
  },
  async put({ bucket, key, path }) { await s3.putObject(bucket, key, await readFile(path)) },
  async multipart({ bucket, key, path }) {
    await new Minio.Client({ ...connection, partSize: 5 * MIB }).fPutObject(bucket, key, path)
  },
  async get({ bucket, key, path }) { await writeFile(path, await bytes(await s3.getObject(bucket, key))) },
  async range({ bucket, key, first, last, path }) {
    await writeFile(path, await bytes(await s3.getPartialObject(bucket, key, first, last + 1 - first)))
  },
  async list({ bucket, prefix }) { return (await listed(bucket, prefix)).map((entry) => entry.name) },
  // It encodes the source itself; its CopySourceOptions leave a plus sign, which S3 takes for a blank.
  async copy({ bucket, key, to }) { await s3.copyObject(bucket, to, `/${bucket}/${key}`) },
  async delete({ bucket, key }) { await s3.removeObject(bucket, key) },
  sign_get({ bucket, key }) { return s3.presignedGetObject(bucket, key, 600) },
  sign_put({ bucket, key }) { return s3.presignedPutObject(bucket, key, 600) },
  async get_former({ bucket, key, path }) {
    const former = (await listed(bucket, key, { IncludeVersion: true })).find((entry) => !entry.isLatest)
    await writeFile(path, await bytes(await s3.getObject(bucket, key, { versionId: former.versionId })))
  },
})
