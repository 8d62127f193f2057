// The side of a client, for Node: reads requests as lines of JSON, calls the method of that name, answers with a line.
// See driver.py.

import { createInterface } from 'node:readline'

export const endpoint = process.env.AWS_ENDPOINT_URL_S3
export const accessKey = process.env.AWS_ACCESS_KEY_ID
export const secretKey = process.env.AWS_SECRET_ACCESS_KEY
export const region = process.env.AWS_REGION ?? 'us-east-1'

export async function serve(client) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: method, ...request } = JSON.parse(line)
    let answer
    if (!(method in client)) {
      answer = { absent: true }
    } else {
      try {
        answer = { value: (await client[method](request)) ?? null }
      } catch (error) {
        answer = { error: `${error.name}: ${error.message}` }
      }
    }
    process.stdout.write(JSON.stringify(answer) + '\n')
  }
}
